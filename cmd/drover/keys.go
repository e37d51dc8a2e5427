package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/publish"
)

// keysGroup is the group keys.
func (a *app) keysGroup() *cobra.Command {
	return group("keys", "the signing keys: who may sign what, and their exchange",
		a.keysList(), a.keysGenerate(), a.keysExport(),
		a.keysAdd(), a.keysRotate(), a.keysRevoke(), a.keysThreshold(), a.keysRenew(),
		a.keysPending(), a.keysSign(), a.keysFinish())
}

// roleKey is one key of a role.
type roleKey struct {
	ID   string `json:"id"`
	File string `json:"file,omitempty"` // where it is at hand
}

// roleRow is one role as keys list shows it.
type roleRow struct {
	Role      string    `json:"role"`
	Online    bool      `json:"online"` // the hub signs it
	Version   int64     `json:"version"`
	Threshold int       `json:"threshold"`
	Keys      []roleKey `json:"keys"`
	Expires   time.Time `json:"expires"`
	Due       time.Time `json:"due"`
	Pending   bool      `json:"pending"` // due now
}

func (a *app) keysList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the roles: keys, thresholds, and what has to be signed again when", Args: exactly(0),
		Long: `Shows every role with the keys that may sign it, how many of them must, where a
key is at hand, and until when what they signed holds. What the hub signs, it
renews by itself; the rest is renewed with keys renew.`,
		Example: "  drover keys list --keys /media/stick",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				now := time.Now()
				all, err := publish.Standings(c.Context(), f.Repo(), now)
				if err != nil {
					return err
				}
				rows := []roleRow{}
				for _, s := range all {
					files, err := f.KeyDir(s.Role).List()
					if err != nil {
						return err
					}
					rows = append(rows, rowOf(s, files))
				}
				return a.print(rows, func(w io.Writer) { keysTable(w, rows, now) })
			})
		},
	}
}

func rowOf(s publish.Standing, files []publish.KeyFile) roleRow {
	r := roleRow{Role: s.Role, Online: s.Online, Version: s.Version, Threshold: s.Threshold, Expires: s.Expires, Due: s.Due, Pending: s.Pending}
	for _, id := range s.Keys {
		k := roleKey{ID: id}
		for _, f := range files {
			if f.Role == s.Role && f.ID == id {
				k.File = f.Path
			}
		}
		r.Keys = append(r.Keys, k)
	}
	return r
}

func keysTable(w io.Writer, rows []roleRow, now time.Time) {
	var cells [][]string
	for _, r := range rows {
		var ids []string
		here := 0
		for _, k := range r.Keys {
			ids = append(ids, publish.ShortID(k.ID))
			if k.File != "" {
				here++
			}
		}
		who, due := "owner", r.Due.Format("2006-01-02")
		if r.Online {
			who, due = "hub", "by the hub"
		}
		switch {
		case !r.Expires.After(now):
			due = "OVER"
		case r.Pending && !r.Online:
			due = "NOW"
		}
		cells = append(cells, []string{
			r.Role, who, fmt.Sprint(r.Version), fmt.Sprintf("%d of %d", r.Threshold, len(r.Keys)), fmt.Sprint(here),
			r.Expires.Format("2006-01-02 15:04"), due, strings.Join(ids, " "),
		})
	}
	table(w, "ROLE SIGNER VERSION NEEDS HERE EXPIRES DUE KEYS", cells)
}
