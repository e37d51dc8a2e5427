package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
)

// models is the group models.
func (a *app) models() *cobra.Command {
	return group("models", "list and show models, name versions", a.modelsList(), a.modelsShow(), a.modelsAlias())
}

func (a *app) modelsList() *cobra.Command {
	return &cobra.Command{
		Use: "list [NAME]", Short: "list the models, newest version first", Args: cobra.MaximumNArgs(1), Example: "  drover models list",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				all, err := catalogue(c.Context(), f, strings.Join(args, ""))
				if err != nil {
					return err
				}
				return a.print(all, func(w io.Writer) { modelsTable(w, all, time.Now()) })
			})
		},
	}
}

// catalogue joins models with what was made of them.
func catalogue(ctx context.Context, f *cloud.Fleet, name string) ([]modelJSON, error) {
	ms, err := f.Registry.Models(ctx, name)
	if err != nil {
		return nil, err
	}
	if name != "" && len(ms) == 0 {
		_, err := f.Registry.Model(ctx, name, "")
		return nil, err
	}
	rels, err := f.Registry.Releases(ctx, name)
	if err != nil {
		return nil, err
	}
	as, err := f.Registry.Aliases(ctx, name)
	if err != nil {
		return nil, err
	}
	all := []modelJSON{}
	for _, m := range ms {
		v := modelView(m)
		for _, r := range rels {
			v.Released = v.Released || r.Model == m.Name && r.Version == m.Version
		}
		for _, x := range as {
			if x.Model == m.Name && x.Version == m.Version {
				v.Aliases = append(v.Aliases, x.Alias)
			}
		}
		all = append(all, v)
	}
	return all, nil
}

// metrics are what cloud.Summary kept.
type metrics struct {
	Dataset string   `json:"dataset"`
	N       int      `json:"n"`
	Top1    *float64 `json:"top1"`
}

func metricsOf(m *registry.Model) metrics {
	var out metrics
	if json.Unmarshal(m.Metrics, &out) != nil {
		return metrics{} // somebody else's metrics
	}
	return out
}

func modelsTable(w io.Writer, all []modelJSON, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no models; drover train makes one, drover push takes one from elsewhere")
		return
	}
	var rows [][]string
	for i := range all {
		m := &all[i]
		top1, released := "", ""
		if x := metricsOf(&m.Model); x.Top1 != nil {
			top1 = percent(*x.Top1)
		}
		if m.Released {
			released = "yes"
		}
		rows = append(rows, []string{m.Ref, age(m.Created, now), fmt.Sprint(m.Spec.Contract.Classes()), top1, released, strings.Join(m.Aliases, ", ")})
	}
	table(w, "MODEL CREATED CLASSES TOP-1 RELEASED ALIASES", rows)
}

func (a *app) modelsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME@VERSION", Short: "show a model and its lineage", Args: exactly(1), Example: "  drover models show gate@production",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error { return a.runModelsShow(c.Context(), f, args[0]) })
		},
	}
}

func (a *app) runModelsShow(ctx context.Context, f *cloud.Fleet, ref string) error {
	m, err := f.Registry.ModelByRef(ctx, ref)
	if err != nil {
		return err
	}
	blob, err := f.Registry.Blob(ctx, m.TFLite)
	if err != nil {
		return err
	}
	all, err := catalogue(ctx, f, m.Name)
	if err != nil {
		return err
	}
	view := modelView(m)
	for _, v := range all {
		if v.Ref == view.Ref {
			view = v
		}
	}
	return a.print(view, func(w io.Writer) {
		fmt.Fprintf(w, "%s, made %s\n\n", m.Ref(), age(m.Created, time.Now()))
		describe(w, &m, blob.Size)
		accuracy := ""
		if x := metricsOf(&m); x.Top1 != nil {
			accuracy = fmt.Sprintf("%s on %d pictures of %s", percent(*x.Top1), x.N, x.Dataset)
		}
		released := "no"
		if view.Released {
			released = "yes"
		}
		labels := m.Spec.Labels
		text := strings.Join(labels[:min(len(labels), 10)], ", ")
		if len(labels) > 10 {
			text += fmt.Sprintf(" and %d more", len(labels)-10)
		}
		pairs(w, "  labels", text, "  top-1", accuracy, "  released", released,
			"  aliases", strings.Join(view.Aliases, ", "), "  parents", strings.Join(m.Parents, ", "), "  lineage", lineageText(m.Lineage))
	})
}

func lineageText(raw json.RawMessage) string {
	if s := string(raw); s != "{}" {
		return s
	}
	return ""
}

func (a *app) modelsAlias() *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use: "alias NAME@VERSION ALIAS", Short: "point a name such as production at a version", Args: exactly(2),
		Example: "  drover models alias gate@3 production\n  drover models alias gate production --remove",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				m, err := f.Registry.ModelByRef(c.Context(), args[0])
				if err != nil {
					return err
				}
				answer := registry.Alias{Model: m.Name, Alias: args[1], Version: m.Version}
				if remove {
					if err := f.Registry.RemoveAlias(c.Context(), m.Name, args[1]); err != nil {
						return err
					}
					return a.print(answer, func(w io.Writer) { fmt.Fprintf(w, "%s@%s is forgotten\n", m.Name, args[1]) })
				}
				if err := f.Registry.SetAlias(c.Context(), m.Name, args[1], m.Version); err != nil {
					return err
				}
				return a.print(answer, func(w io.Writer) { fmt.Fprintf(w, "%s@%s is now %s\n", m.Name, args[1], m.Ref()) })
			})
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "forget the alias instead")
	return c
}
