package trust

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
)

// Options are what a Client needs.
type Options struct {
	Store Store
	// Root is root.json from enrolment. It is used only when the store has
	// none that can be read, so it should be passed at every start.
	Root      []byte
	BuildTime time.Time            // of this program; the clock is never before it
	Boottime  func() time.Duration // counts from boot and through suspend; nil: the kernel's
	BootID    string               // names this boot; empty: the kernel's
	Logger    *slog.Logger         // nil: silent
}

// Client holds what is trusted. It is safe for concurrent use.
type Client struct {
	mu     sync.Mutex
	store  Store
	log    *slog.Logger
	clock  clock
	root   *metadata.RootType
	raw    []byte // of root
	floor  floor
	world  *world            // nil until something was accepted
	kept   map[string][]byte // what the store had; serves to heal
	offers *offers
	more   bool // the last rotation ended at its limit
	gap    struct {
		root  int64         // version under which a root was missing
		since time.Duration // boottime
	}
}

// Status is what a client trusts at the moment.
type Status struct {
	Versions map[string]int64 // per role; a role without trusted metadata is absent
	RefTime  time.Time
	Fresh    bool   // updates are possible
	Root     string // SHA-256 of the trusted root.json
}

// Freshness is how wire.State calls it.
func (s Status) Freshness() string {
	if s.Fresh {
		return "current"
	}
	return "stale"
}

// Open reads what the store kept. Damaged or missing parts are no error: they
// are asked for again. Without any root it is ErrNoRoot.
func Open(o Options) (*Client, error) {
	if o.Store == nil {
		return nil, errors.New("trust: open: no store")
	}
	c := &Client{store: o.Store, log: o.Logger, offers: newOffers()}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.clock = clock{build: o.BuildTime, boottime: o.Boottime, boot: o.BootID}
	if c.clock.boottime == nil {
		c.clock.boottime = kernelBoottime
	}
	if c.clock.boot == "" {
		c.clock.boot = kernelBoot()
	}
	c.clock.opened = c.clock.boottime()

	files, fl, err := o.Store.LoadTrust()
	if err != nil {
		return nil, fmt.Errorf("trust: open: %w: %w", ErrStore, err)
	}
	if c.floor, err = decodeFloor(fl); err != nil {
		c.log.Warn("trust: floor is taken from the metadata", "error", err)
	}
	if err := c.openRoot(files[metadata.ROOT], o.Root); err != nil {
		return nil, err
	}
	c.kept = map[string][]byte{}
	maps.Copy(c.kept, files)
	c.revive()
	return c, nil
}

// openRoot takes the stored root, or else the given one.
func (c *Client) openRoot(stored, given []byte) error {
	var firstErr error
	for _, raw := range [][]byte{stored, given} {
		if len(raw) == 0 {
			continue
		}
		v, err := tufcore.New(raw, nil, policy())
		if err == nil {
			c.root, c.raw = v.Root(), raw
			return nil
		}
		firstErr = errors.Join(firstErr, err)
	}
	if firstErr != nil {
		return fmt.Errorf("trust: open: %w: %w", ErrNoRoot, firstErr)
	}
	return fmt.Errorf("trust: open: %w; enrol the device", ErrNoRoot)
}

// revive makes the stored files the trusted world, as far as they hold.
func (c *Client) revive() {
	ts, snap := c.kept[metadata.TIMESTAMP], c.kept[metadata.SNAPSHOT]
	if ts == nil || snap == nil || c.root.Version < c.floor.Versions[metadata.ROOT] {
		c.world = nil // under an older root, keys may count that were taken away
		return
	}
	b := builder{root: c.raw, floor: c.floor, find: c.fromKept, log: c.log}
	w, err := b.build(ts, snap)
	if err != nil {
		c.log.Warn("trust: stored metadata is not usable and is asked for again", "error", err)
		c.world = nil
		if _, incomplete := errors.AsType[*MissingError](err); !incomplete {
			// Not worth another try: the parts below may still serve.
			delete(c.kept, metadata.TIMESTAMP)
			delete(c.kept, metadata.SNAPSHOT)
		}
		return
	}
	c.world = w
	c.floor.Versions.Raise(w.versions)
	if c.floor.Clock == 0 { // the floor was lost
		c.clock.verified(&c.floor, w.versions[metadata.TIMESTAMP])
	}
}

func (c *Client) fromKept(role string, w tufcore.Want) ([]byte, error) {
	if raw := c.kept[role]; raw != nil && tufcore.Digest(raw) == w.Digest() {
		return raw, nil
	}
	return nil, &MissingError{Role: role, Version: w.Version}
}

func (c *Client) now() time.Time { return c.clock.now(c.floor) }

func (c *Client) versionOf(role string) int64 {
	if role == metadata.ROOT {
		return c.root.Version
	}
	if c.world == nil {
		return 0
	}
	return c.world.versions[role]
}

// Status tells what is trusted now.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Versions: map[string]int64{metadata.ROOT: c.root.Version}, RefTime: c.now(), Root: tufcore.Digest(c.raw)}
	if c.world != nil {
		maps.Copy(s.Versions, c.world.versions)
		_, at := c.world.expiry()
		s.Fresh = !s.RefTime.After(at)
	}
	return s
}

// OfferCurrent takes a payload of trust/current. Its errors are about shape
// alone (ErrMalformed); Refresh judges the rest. An empty payload is ignored.
func (c *Client) OfferCurrent(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	var cur wire.Current
	if err := wire.Decode(payload, wire.MaxCurrent, &cur); err != nil {
		return refuse(ErrMalformed, "current: %v", err)
	}
	t, err := policy().Screen(metadata.TIMESTAMP, cur.Timestamp)
	if err != nil {
		return err
	}
	if _, err := policy().Screen(metadata.SNAPSHOT, cur.Snapshot); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offers.addCurrent(candidate{timestamp: cur.Timestamp, snapshot: cur.Snapshot, version: t.Version})
	return nil
}

// OfferRole takes a payload of trust/{role}/{version}; raw is copied. Its
// errors are about shape alone (ErrMalformed, ErrVersionSkip); Refresh judges
// the rest. An empty payload is ignored: the topic was cleared.
func (c *Client) OfferRole(role string, version int64, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	switch role {
	case wire.RoleRoot, wire.RoleTargets, wire.RoleModels, wire.RoleRollouts:
	default:
		return refuse(ErrMalformed, "role %q is not offered by itself", role)
	}
	h, err := policy().Screen(role, raw)
	if err != nil {
		return err
	}
	if h.Version != version {
		return refuse(ErrVersionSkip, "%s offered as version %d says it is version %d; messages were exchanged", role, version, h.Version)
	}
	f := offer{version: version, raw: append([]byte(nil), raw...)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if role == wire.RoleRoot {
		c.offers.addRoot(c.root.Version, f)
	} else {
		// Also below the floor: a root may be on its way that resets it.
		c.offers.addRole(role, f)
	}
	return nil
}
