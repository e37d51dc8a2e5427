package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
)

// ca is the group ca.
func (a *app) ca() *cobra.Command {
	return group("ca", "the certificates of the hub and the devices", a.caShow(), a.caRotate())
}

func (a *app) caShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "show the authority's certificates and when they end", Args: exactly(0), Example: "  drover ca show",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				s, err := f.Authority.Summary()
				if err != nil {
					return err
				}
				return a.print(s, func(w io.Writer) {
					day := func(t time.Time) string { return t.Format("2006-01-02") }
					former := ""
					if s.FormerUntil != nil {
						former = "good until " + s.FormerUntil.UTC().Format("2006-01-02 15:04 UTC")
					}
					pairs(w, "root", "until "+day(s.RootEnds)+", its key is offline", "hub CA", "until "+day(s.HubCAEnds)+", serial "+s.HubCA,
						"hub's server", "until "+day(s.ServerEnds)+", renewed by the hub", "devices", fmt.Sprintf("90 days each, renewed by themselves; %d certificates are revoked", s.Revoked),
						"former hub CA", former)
				})
			})
		},
	}
}

func (a *app) caRotate() *cobra.Command {
	grace := time.Duration(-1)
	c := &cobra.Command{
		Use: "rotate", Short: "replace the hub CA, because its time is over or the hub was stolen", Args: exactly(0),
		Long: `Makes a new hub CA, signed with the root key (ca.key: in the folder --keys, or in
the fleet's), and new certificates of the hub. Devices trust the root alone and
follow: a running hub asks them to renew their certificates, others are asked
when they come. Tokens stay good.

The former hub CA is revoked after --grace: at once where the hub runs its own
broker, which knows devices by their keys all the same; after seven days with an
external broker, which would lock out devices that have not renewed yet. Have an
external broker read its files anew (SIGHUP) now and when the grace is over.`,
		Example: "  drover ca rotate --keys /media/stick",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				if !c.Flags().Changed("grace") {
					if grace = 0; f.Settings.External != "" {
						grace = 7 * 24 * time.Hour
					}
				}
				if grace < 0 || grace > 90*24*time.Hour {
					return usage("for example --grace 168h", "--grace %v: wanted 0 to 90 days", grace)
				}
				return a.rotateCA(f, grace)
			})
		},
	}
	c.Flags().DurationVar(&grace, "grace", 0, "how long the former hub CA stays good (default: 0, or 168h with an external broker)")
	return c
}

func (a *app) rotateCA(f *cloud.Fleet, grace time.Duration) error {
	path := f.RootKeyFile()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the root key, wanted at %s", cloud.ErrNoKey, path)
	}
	var key []byte
	_, err := a.passphrase(func(p string) (err error) { key, err = f.RootKey(p); return err })
	if err != nil {
		return err
	}
	r, err := f.Authority.RotateHubCA(key, grace)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "the hub CA is replaced\n\n")
		pairs(w, "  new", r.Serial, "  former", r.Former+", revoked "+r.Revoked.UTC().Format("2006-01-02 15:04 UTC"))
		if f.Settings.External != "" {
			fmt.Fprintln(w, "\nnext: have the broker read its certificates and its revocation list anew (SIGHUP)")
		}
	})
}
