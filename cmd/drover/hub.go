package main

import (
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
)

// hub is the verb hub.
func (a *app) hub() *cobra.Command {
	return &cobra.Command{
		Use: "hub", Short: "serve the fleet: broker, enrolment, publication, rollouts", Args: exactly(0),
		Long: `Serves the fleet until it is told to stop (SIGINT, SIGTERM). It may be stopped
at any moment; all it knows is in the fleet's folder. It logs to standard error,
with --json as JSON.`,
		Example: "  drover hub --fleet fleet",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				log := a.logger()
				h, err := cloud.NewHub(c.Context(), f, cloud.HubOptions{Logger: log, Observe: func(device string, e wire.Event) {
					log.Info("event", "device", device, "kind", e.Kind, "release", e.Release, "from", e.From, "to", e.To,
						"outcome", e.Outcome, "reason", e.Reason, "message", e.Message)
				}})
				if err != nil {
					return err
				}
				log.Info("hub serves", "fleet", f.Settings.Fleet, "broker", f.Settings.Broker.Public, "enrolment", f.Settings.Enroll.Public)
				if err := h.Run(c.Context()); err != nil {
					return err
				}
				log.Info("hub stopped")
				return nil
			})
		},
	}
}
