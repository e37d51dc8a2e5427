package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/broker"
)

// brokerConfig is the verb broker-config.
func (a *app) brokerConfig() *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use: "broker-config DIR", Short: "write the configuration of a mosquitto that serves the fleet", Args: exactly(1),
		Long: `Writes mosquitto.conf and mosquitto.acl into DIR, for a mosquitto 2 that takes
the place of the hub's own broker. The hub connects to it when fleet.yaml names
it as external_broker (drover init --external-broker).`,
		Example: "  drover broker-config /etc/mosquitto/drover --listen :8883",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error { return a.runBrokerConfig(f, args[0], listen) })
		},
	}
	c.Flags().StringVar(&listen, "listen", "", "host:port mosquitto listens on (default: broker.listen of fleet.yaml)")
	return c
}

func (a *app) runBrokerConfig(f *cloud.Fleet, dir, listen string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if listen == "" {
		listen = f.Settings.Broker.Listen
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	conf, err := broker.MosquittoConfig(dir, broker.MosquittoOptions{
		Fleet: f.Settings.Fleet, Address: listen, Files: broker.Files(f.Authority.Files()),
	})
	if err != nil {
		return err
	}
	answer := map[string]string{"config": conf, "listen": listen}
	return a.print(answer, func(w io.Writer) {
		fmt.Fprintf(w, "%s is written\n\nnext: mosquitto -c %s\n", conf, conf)
	})
}
