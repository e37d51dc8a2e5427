package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
)

// initFlags are the flags of init.
type initFlags struct {
	name, hub, listen, external string
	brokerPort, enrollPort      uint16
	workFactor                  int
	insecure                    bool
}

// initFleet is the verb init.
func (a *app) initFleet() *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use: "init DIR", Short: "make a fleet: role keys, certificates, settings", Args: exactly(1),
		Long: `Makes a fleet in the folder DIR, which must not hold one.

keys/ gets one signing key for each role. Those of root, targets and models are
the owner's: they are locked with a passphrase ($DROVER_PASSPHRASE, or asked
for), and may be kept elsewhere while nothing is signed; with --keys they are
made there in the first place, and the hub runs without them. ca/ gets the
certificates, fleet.yaml the settings.`,
		Example: "  drover init fleet --fleet-name barn --hub hub.example.com",
		RunE:    func(c *cobra.Command, args []string) error { return a.runInit(c, args[0], f) },
	}
	c.Flags().StringVar(&f.name, "fleet-name", "", "name of the fleet (default: that of the folder)")
	c.Flags().StringVar(&f.hub, "hub", "localhost", "name or address by which devices reach the hub")
	c.Flags().Uint16Var(&f.brokerPort, "broker-port", 8883, "port of MQTT over TLS")
	c.Flags().Uint16Var(&f.enrollPort, "enroll-port", 8884, "port of enrolment over HTTPS")
	c.Flags().StringVar(&f.listen, "listen", "", "address the hub listens on (default: all, or 127.0.0.1 if --hub is localhost)")
	c.Flags().StringVar(&f.external, "external-broker", "", "host:port of a broker you run yourself (see broker-config)")
	c.Flags().IntVar(&f.workFactor, "work-factor", 18, "cost of guessing the passphrase, as a power of two: 10 to 22")
	c.Flags().BoolVar(&f.insecure, "insecure-no-passphrase", false, "leave the owner's keys unlocked: for trials only")
	return c
}

func (f *initFlags) settings(dir string) (cloud.Settings, error) {
	name := f.name
	if name == "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return cloud.Settings{}, err
		}
		name = filepath.Base(abs)
	}
	if _, _, err := net.SplitHostPort(f.hub); err == nil || f.hub == "" {
		return cloud.Settings{}, usage("ports are set by --broker-port and --enroll-port", "--hub %q is no name or address", f.hub)
	}
	listen := f.listen
	if listen == "" && local(f.hub) {
		listen = "127.0.0.1"
	}
	at := func(host string, port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
	s := cloud.Settings{
		Fleet:    name,
		Broker:   cloud.Endpoint{Listen: at(listen, f.brokerPort), Public: at(f.hub, f.brokerPort)},
		Enroll:   cloud.Endpoint{Listen: at(listen, f.enrollPort), Public: at(f.hub, f.enrollPort)},
		External: f.external,
	}
	if f.external != "" {
		s.Broker.Public = f.external
	}
	return s, s.Check()
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (a *app) runInit(c *cobra.Command, dir string, f initFlags) error {
	s, err := f.settings(dir)
	if err != nil {
		return err
	}
	if f.workFactor < 10 || f.workFactor > 22 {
		return usage("18 takes about a second to open a key", "--work-factor %d: wanted 10 to 22", f.workFactor)
	}
	if _, err := os.Stat(filepath.Join(dir, "fleet.yaml")); err == nil {
		return fmt.Errorf("%w: %s", cloud.ErrExists, dir)
	}
	p, err := a.newPassphrase(f.insecure)
	if err != nil {
		return err
	}
	fleet, err := cloud.Init(c.Context(), dir, cloud.InitOptions{Settings: s, Passphrase: p, Insecure: f.insecure, Keys: a.keysDir(), WorkFactor: f.workFactor})
	if err != nil {
		return err
	}
	if err := fleet.Close(); err != nil {
		return err
	}
	ownerKeys := a.keysDir()
	if ownerKeys == "" {
		ownerKeys = filepath.Join(dir, "keys")
	}
	if f.insecure {
		a.note("the owner's keys in %s have no passphrase: whoever reads them can sign releases", ownerKeys)
	}
	if local(f.hub) {
		a.note("devices on other machines do not reach %q; --hub NAME makes a fleet that they can", f.hub)
	}
	answer := struct {
		Fleet  string `json:"fleet"`
		Dir    string `json:"dir"`
		Broker string `json:"broker"`
		Enroll string `json:"enroll"`
		Locked bool   `json:"locked"`
	}{s.Fleet, dir, s.Broker.Public, s.Enroll.Public, p != ""}
	return a.print(answer, func(w io.Writer) {
		fmt.Fprintf(w, "fleet %s is made in %s\n\n", s.Fleet, dir)
		pairs(w, "  broker", "mqtts://"+s.Broker.Public, "  enrolment", "https://"+s.Enroll.Public,
			"  settings", filepath.Join(dir, "fleet.yaml"), "  owner's keys", ownerKeys+": root, targets, models")
		fmt.Fprintf(w, "\nnext: drover hub --fleet %s, then drover enroll --fleet %s for each device\n", dir, dir)
	})
}

// newPassphrase finds or asks for a passphrase for new keys.
func (a *app) newPassphrase(insecure bool) (string, error) {
	p := os.Getenv(envPassphrase)
	switch {
	case insecure && p != "":
		return "", usage("", "--insecure-no-passphrase and %s exclude each other", envPassphrase)
	case insecure || p != "":
		return p, nil
	case !terminal(a.in):
		return "", usage("set "+envPassphrase+", run this on a terminal, or say --insecure-no-passphrase for a trial", "the owner's keys need a passphrase")
	}
	p, err := a.ask("new passphrase for the owner's keys: ")
	if err != nil {
		return "", err
	}
	again, err := a.ask("once more: ")
	if err != nil {
		return "", err
	}
	if p == "" || p != again {
		return "", usage("", "the passphrase is empty, or was not the same twice; nothing was made")
	}
	return p, nil
}
