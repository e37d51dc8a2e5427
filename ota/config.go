package ota

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/store"
)

// Config is what an Updater is made of. What stands under "optional" has a
// default.
type Config struct {
	Device string
	Labels map[string]string // as plans select by them
	// Capabilities are what this device offers to what manifests, variants
	// and custom operators require: agent features, "edgetpu", "op:NAME".
	Capabilities []string

	Store     *store.Store
	Trust     Trust
	Fetcher   *fetch.Fetcher // used by this Updater alone
	Prober    Prober
	Activator Activator
	Health    Health
	Anchor    Anchor
	// Inspect reads a model without running it: its tensors and the names of
	// its custom operators. Its error means that the bytes are no model.
	Inspect func(model []byte) (infer.Contract, []string, error)

	// optional
	OnEvent    func(wire.Event) // without header; called from the loop, must not block
	Now        func() time.Time // the system clock, for dates alone
	RetryPause time.Duration    // before a release that failed by no fault of its own is tried again; doubles up to 1 h; default 1 min
	Logger     *slog.Logger
}

// Validate says what is missing and fills in defaults.
func (c *Config) Validate() error {
	if !wire.ValidName(c.Device) {
		return fmt.Errorf("ota: device name %q", c.Device)
	}
	for name, missing := range map[string]bool{
		"Store": c.Store == nil, "Trust": c.Trust == nil, "Fetcher": c.Fetcher == nil, "Prober": c.Prober == nil,
		"Activator": c.Activator == nil, "Health": c.Health == nil, "Anchor": c.Anchor == nil, "Inspect": c.Inspect == nil,
	} {
		if missing {
			return errors.New("ota: configuration without " + name)
		}
	}
	if c.OnEvent == nil {
		c.OnEvent = func(wire.Event) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.RetryPause <= 0 {
		c.RetryPause = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
