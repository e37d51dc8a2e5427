package agent

import (
	"context"
	"fmt"
	"strings"

	"github.com/droverhq/drover/agent/config"
	"github.com/droverhq/drover/agent/wire"
)

// watchConfig follows the configuration file. A bad edit changes nothing and
// says so until it is mended.
func (a *Agent) watchConfig(ctx context.Context) error {
	w := config.Watcher{
		Path: a.opts.Path, Logger: a.log, Nudge: a.opts.Reload,
		Apply: func(c config.Config) { a.apply(ctx, c) },
		Refuse: func(err error) {
			a.setProblem(err.Error())
			a.event(wire.Event{Kind: wire.EventConfig, Message: "edit not taken, the last good configuration stays: " + err.Error()})
		},
	}
	return w.Run(ctx)
}

// apply takes what may change while running and names what needs a restart.
func (a *Agent) apply(ctx context.Context, next config.Config) {
	if a.vision.SetCameras(ctx, cameras(next.Cameras)) != nil || a.vision.SetStaleAfter(ctx, next.Model.StaleAfter) != nil {
		return // stopping
	}
	a.setLevel(next.Log.Level)
	a.mu.Lock()
	a.telemetry, a.labels = next.Telemetry.Every, next.Labels
	a.mu.Unlock()
	if m := a.member.Load(); m != nil {
		m.updater.SetLabels(next.Labels)
	}
	message, problem := "configuration taken", ""
	if keys := a.cfg.NeedsRestart(&next); len(keys) > 0 {
		problem = fmt.Sprintf("%s will count after a restart of droverd", strings.Join(keys, ", "))
		message += "; " + problem
	}
	a.setProblem(problem)
	a.event(wire.Event{Kind: wire.EventConfig, Message: message})
}

func (a *Agent) setProblem(s string) {
	a.mu.Lock()
	a.problem = s
	a.mu.Unlock()
}

// currentLabels are those of the last good configuration.
func (a *Agent) currentLabels() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.labels
}
