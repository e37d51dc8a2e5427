package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
)

// devices is the group devices.
func (a *app) devices() *cobra.Command {
	return group("devices", "list and show devices, replace one, throw one out", a.devicesList(), a.devicesShow(), a.devicesReplace(), a.devicesRevoke())
}

func (a *app) devicesList() *cobra.Command {
	var labels map[string]string
	var online bool
	c := &cobra.Command{
		Use: "list", Short: "list the devices", Args: exactly(0), Example: "  drover devices list --label site=north",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				filter := registry.DeviceFilter{}
				if online {
					filter.Online = &online
				}
				all, err := f.Registry.Devices(c.Context(), filter)
				if err != nil {
					return err
				}
				shown := []registry.Device{} // never null in JSON
				for _, d := range all {
					if matches(reported(&d).Labels, labels) {
						shown = append(shown, d)
					}
				}
				return a.print(shown, func(w io.Writer) { devicesTable(w, shown, time.Now()) })
			})
		},
	}
	c.Flags().StringToStringVar(&labels, "label", nil, "k=v: only devices with this label; may be repeated")
	c.Flags().BoolVar(&online, "online", false, "only devices that are connected")
	return c
}

func matches(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// reported is the state a device last reported; empty before it did.
func reported(d *registry.Device) wire.State {
	var s wire.State
	if len(d.State) == 0 || json.Unmarshal(d.State, &s) != nil {
		return wire.State{}
	}
	return s
}

// presence is one word for people.
func presence(d *registry.Device) string {
	switch {
	case d.Revoked():
		return "revoked"
	case d.Online:
		return "online"
	}
	return "offline"
}

func devicesTable(w io.Writer, all []registry.Device, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no devices; drover enroll makes a token for one")
		return
	}
	var rows [][]string
	for i := range all {
		d := &all[i]
		s := reported(d)
		active, health := "", ""
		if s.Active != nil {
			active = strings.TrimPrefix(s.Active.Path, "release/")
		}
		if s.Agent != "" {
			health = "healthy"
			if !s.Healthy {
				health = fmt.Sprintf("problems: %d", len(s.Problems))
			}
		}
		rows = append(rows, []string{d.ID, presence(d), age(d.LastSeen, now), active, updateText(s.Update), health, labelsText(s.Labels)})
	}
	table(w, "DEVICE STATE SEEN ACTIVE UPDATE HEALTH LABELS", rows)
}

// updateText is where an update stands, or how the last one ended.
func updateText(u wire.UpdateStatus) string {
	switch {
	case u.State != "" && u.State != wire.Idle:
		if u.State == wire.Fetch && u.Total > 0 {
			return fmt.Sprintf("fetch %d %%", 100*u.Done/u.Total)
		}
		return string(u.State)
	case u.Outcome != "" && u.Reason != "":
		return fmt.Sprintf("%s (%s)", u.Outcome, u.Reason)
	}
	return string(u.Outcome)
}

func (a *app) devicesShow() *cobra.Command {
	return &cobra.Command{
		Use: "show DEVICE", Short: "show what a device last reported", Args: exactly(1), Example: "  drover devices show gate-7",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				d, err := f.Registry.Device(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) { deviceText(w, &d, time.Now()) })
			})
		},
	}
}

func deviceText(w io.Writer, d *registry.Device, now time.Time) {
	pairs(w, "device", d.ID, "state", presence(d)+", seen "+age(d.LastSeen, now), "enrolled", age(d.EnrolledAt, now),
		"certificate", "until "+d.Cert.Expiry.Format("2006-01-02")+", serial "+d.Cert.Serial)
	s := reported(d)
	if s.Agent == "" {
		fmt.Fprintln(w, "\nit has not reported yet")
		return
	}
	active, previous := "none", ""
	if s.Active != nil {
		active = s.Active.Path + " (manifest " + short(s.Active.Digest) + ")"
	}
	if s.Previous != nil {
		previous = s.Previous.Path
	}
	update := strings.TrimSpace(updateText(s.Update) + " " + s.Update.Release)
	if s.Update.Message != "" {
		update += ": " + s.Update.Message
	}
	pairs(w, "agent", s.Agent+", "+s.Arch, "labels", labelsText(s.Labels), "active", active, "previous", previous, "update", update,
		"model", fmt.Sprintf("%s by %s, %.1f fps, p99 %.1f ms, %d restarts", s.Model.State, s.Model.Delegate, s.Model.FPS, float64(s.Model.InvokeP99)/1000, s.Model.Restarts),
		"trust", fmt.Sprintf("root %d, metadata %s, epoch %d, anchored by %s", s.Root, s.Freshness, s.Epoch, s.Assurance),
		"problems", strings.Join(s.Problems, "; "), "configuration", s.Config)
	for _, cam := range s.Cameras {
		line := fmt.Sprintf("%s, %d × %d, %.1f fps, %d restarts", cam.State, cam.Width, cam.Height, cam.FPS, cam.Restarts)
		if cam.Error != "" {
			line += ": " + cam.Error
		}
		pairs(w, "camera "+cam.Name, line)
	}
}

func (a *app) devicesRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke DEVICE", Short: "throw a device out of the fleet, for good", Args: exactly(1),
		Long: `Puts the device's certificate on the revocation list; a running hub ends its
session within seconds. The device keeps running what it has. To have it back,
enrol it anew with a token of drover devices replace.`,
		Example: "  drover devices revoke gate-7",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				if err := f.Revoke(c.Context(), args[0]); err != nil {
					return err
				}
				d, err := f.Registry.Device(c.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) { fmt.Fprintf(w, "device %s is revoked\n", d.ID) })
			})
		},
	}
}

func (a *app) devicesReplace() *cobra.Command {
	var valid time.Duration
	var out string
	c := &cobra.Command{
		Use: "replace DEVICE", Short: "make a token by which another machine takes a device's name", Args: exactly(1),
		Long: `For a device that was broken, stolen or wiped, or that was away until its
certificate ended. The token is good for this name only. When it is used, the
certificates that the former machine may still have are revoked.`,
		Example: "  drover devices replace gate-7 --out gate-7.token",
		RunE: func(c *cobra.Command, args []string) error {
			if valid < time.Minute || valid > 90*24*time.Hour {
				return usage("for example --valid 24h", "--valid %v: wanted a minute to 90 days", valid)
			}
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				t, err := f.ReplaceToken(c.Context(), args[0], valid)
				if err != nil {
					return err
				}
				return a.printToken(t, valid, true, out)
			})
		},
	}
	c.Flags().DurationVar(&valid, "valid", 24*time.Hour, "how long the token may wait to be used")
	c.Flags().StringVar(&out, "out", "", "write the token into this file, which only you can read")
	return c
}
