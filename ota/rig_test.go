package ota_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/internal/disk"
	"github.com/droverhq/drover/ota/store"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

const roomy = 1 << 30

// cloud is a fleet with its blobs.
type cloud struct {
	*repo.Fleet
	serial int64

	mu    sync.Mutex
	blobs map[string][]byte
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	return &cloud{Fleet: repo.New(t), blobs: map[string][]byte{}}
}

func (c *cloud) blob(b []byte) wire.BlobRef {
	ref := wire.NewBlobRef(b)
	c.put(ref.Digest, b)
	return ref
}

// put makes b the answer to whoever asks for a digest; nil: no answer.
func (c *cloud) put(digest string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blobs[digest] = b
}

func (c *cloud) get(digest string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blobs[digest]
}

// modelBytes are what inspect takes for a model.
func modelBytes(version int) []byte {
	b := make([]byte, 150_000+version)
	r := rand.NewChaCha8([32]byte{byte(version)})
	_, _ = r.Read(b)
	copy(b, "MODEL")
	return b
}

func contract() infer.Contract {
	quant := infer.Quant{Scales: []float32{1.0 / 255}, ZeroPoints: []int32{0}}
	return infer.Contract{
		Input:  infer.TensorSpec{Shape: []int{1, 8, 8, 1}, DType: infer.Uint8, Quant: quant},
		Output: infer.TensorSpec{Shape: []int{1, 2}, DType: infer.Uint8, Quant: quant},
	}
}

// release signs a good release, after change had its way with the manifest.
func (c *cloud) release(t *testing.T, version int, change func(*wire.Manifest)) string {
	t.Helper()
	m, err := wire.DecodeManifest(repo.Manifest("gate", version))
	if err != nil {
		t.Fatal(err)
	}
	m.Epoch = 1
	v := &m.Variants[0]
	v.Spec.Contract = contract()
	v.Model = c.blob(modelBytes(version))
	v.Golden = c.blob(wire.Encode(wire.Golden{V: wire.Version, Cases: []wire.GoldenCase{
		{Width: 8, Height: 8, Format: "gray8", Pixels: bytes.Repeat([]byte{byte(version)}, 64), Output: []byte{1, 254}},
	}}))
	if change != nil {
		change(m)
	}
	raw := wire.Encode(m)
	c.blob(raw)
	path, err := publish.AddRelease(context.Background(), c, c.Keys[wire.RoleModels], raw, c.Time)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// plan makes a plan for everybody the only one, and publishes.
func (c *cloud) plan(path string) *repo.World {
	c.serial++
	c.Roll(fmt.Sprintf("plan-%d", c.serial), c.serial, path)
	c.Pass(time.Minute)
	return c.Publish()
}

// machine is everything around the Updater that is not disk or network: the
// children, and the anchor. Its faults are set by tests.
type machine struct {
	mu       sync.Mutex
	answers  string // release that answers the frames
	warm     string
	calls    []string
	least    uint64
	probe    func(context.Context, ota.Candidate) error
	activate func(context.Context, ota.Candidate) error
	goBack   func() error
	judge    func(context.Context, ota.Candidate) error // probation
	anchor   error
	inspect  func([]byte) (infer.Contract, []string, error)
	ops      []string
}

func (m *machine) called(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
}

func (m *machine) answering() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answers
}

func (m *machine) Probe(ctx context.Context, c ota.Candidate) (ota.ProbeReport, error) {
	m.called("probe %s", c.Release.Path)
	if b, err := c.Model(); err != nil || !bytes.HasPrefix(b, []byte("MODEL")) {
		return ota.ProbeReport{}, errors.Join(errors.New("no model"), err)
	}
	g, err := c.Golden()
	if err != nil {
		return ota.ProbeReport{}, err
	}
	if m.probe != nil {
		if err := m.probe(ctx, c); err != nil {
			return ota.ProbeReport{}, err
		}
	}
	return ota.ProbeReport{Runtime: json.RawMessage(`{"kernels":"xnnpack"}`), Cases: len(g.Cases), LatencyP99: time.Millisecond}, nil
}

func (m *machine) Activate(ctx context.Context, c ota.Candidate) error {
	m.called("activate %s", c.Release.Path)
	if string(c.Runtime) != `{"kernels":"xnnpack"}` {
		return fmt.Errorf("runtime %q is not what the probe chose", c.Runtime)
	}
	if m.activate != nil {
		if err := m.activate(ctx, c); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warm, m.answers = m.answers, c.Release.Path
	return nil
}

func (m *machine) Return(_ context.Context, to *ota.Candidate) error {
	path := ""
	if to != nil {
		path = to.Release.Path
	}
	m.called("return %s", path)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers, m.warm = path, ""
	if m.goBack != nil {
		return m.goBack()
	}
	return nil
}

func (m *machine) Commit(_ context.Context, c ota.Candidate) error {
	m.called("commit %s", c.Release.Path)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warm = ""
	return nil
}

func (m *machine) Probation(ctx context.Context, c ota.Candidate, frames int) error {
	m.called("probation %s %d", c.Release.Path, frames)
	if m.judge != nil {
		return m.judge(ctx, c)
	}
	return nil
}

func (m *machine) Epoch() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.least, m.anchor
}

func (m *machine) Raise(to uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.anchor != nil {
		return m.anchor
	}
	m.least = max(m.least, to)
	return nil
}

func (m *machine) Inspect(model []byte) (infer.Contract, []string, error) {
	if m.inspect != nil {
		return m.inspect(model)
	}
	if !bytes.HasPrefix(model, []byte("MODEL")) {
		return infer.Contract{}, nil, errors.New("no model")
	}
	return contract(), m.ops, nil
}

// device is one run of the program, on a disk that outlives it.
type device struct {
	*ota.Updater
	t     *testing.T
	cloud *cloud
	disk  *disk.Disk
	m     *machine

	mu     sync.Mutex
	events []wire.Event
	mute   bool // the network carries no chunks

	cancel context.CancelFunc
	ended  chan error
}

func (d *device) Request(ctx context.Context, blob string, first int, want []byte) error {
	d.mu.Lock()
	mute := d.mute
	d.mu.Unlock()
	b := d.cloud.get(blob)
	if mute || b == nil {
		return nil
	}
	for _, i := range (&wire.Get{First: first, Want: want}).Chunks() {
		lo := min(len(b), i*wire.ChunkSize)
		d.OfferChunk(blob, i, b[lo:min(len(b), lo+wire.ChunkSize)])
	}
	return nil
}

func (d *device) silence(mute bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = mute
}

// prepare opens a device without running it.
func prepare(t *testing.T, c *cloud, dsk *disk.Disk, m *machine) (*device, error) {
	d := &device{t: t, cloud: c, disk: dsk, m: m}
	st, err := store.Open(dsk)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	tc, err := trust.Open(trust.Options{
		Store: st, Root: c.Root(), BuildTime: repo.Start().AddDate(0, -1, 0), BootID: "boot",
		Boottime: func() time.Duration { return time.Hour + time.Since(began) },
	})
	if err != nil {
		return nil, err
	}
	d.Updater, err = ota.New(ota.Config{
		Device: "cam-1", Capabilities: []string{"deltas"}, Store: st, Trust: ota.FromTrust(tc),
		Fetcher: fetch.New(fetch.Config{Source: d}), Prober: m, Activator: m, Health: m, Anchor: m, Inspect: m.Inspect,
		OnEvent: func(ev wire.Event) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.events = append(d.events, ev)
		},
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers, m.warm = "", ""
	if a, ok := d.Active(); ok {
		m.answers = a.Release.Path
	}
	return d, nil
}

// start runs a device in the bubble.
func start(t *testing.T, c *cloud, dsk *disk.Disk, m *machine) *device {
	t.Helper()
	d, err := prepare(t, c, dsk, m)
	if err != nil {
		t.Fatal(err)
	}
	d.run()
	return d
}

func (d *device) run() {
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel, d.ended = cancel, make(chan error, 1)
	go func() { d.ended <- d.Run(ctx) }()
	synctest.Wait()
}

// stop ends the program in order.
func (d *device) stop() {
	d.cancel()
	if err := <-d.ended; !errors.Is(err, context.Canceled) {
		d.t.Errorf("Run ended with %v", err)
	}
}

// kill ends the program at once: nothing reaches the disk any more. It returns
// the disk as the next start finds it.
func (d *device) kill(mode disk.Mode) *disk.Disk {
	next := d.disk.AfterCut(mode)
	d.stop()
	return next
}

// offerer makes an Updater a repo.Verifier.
type offerer struct{ *ota.Updater }

func (o offerer) OfferCurrent(b []byte) error { o.Updater.OfferCurrent(b); return nil }

func (o offerer) OfferRole(role string, version int64, raw []byte) error {
	o.Updater.OfferRole(role, version, raw)
	return nil
}

func (d *device) offer(w *repo.World) {
	d.t.Helper()
	if err := w.Offer(offerer{d.Updater}); err != nil {
		d.t.Fatal(err)
	}
	synctest.Wait()
}

func (d *device) history() []wire.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]wire.Event(nil), d.events...)
}

// settle lets virtual time pass until the update is over.
func (d *device) settle() wire.UpdateStatus {
	d.t.Helper()
	for range 4000 {
		synctest.Wait()
		if s := d.Status(); s.State == wire.Idle {
			return s
		}
		time.Sleep(time.Minute)
	}
	d.t.Fatalf("stuck: %+v", d.Status())
	return wire.UpdateStatus{}
}

// installed gives a disk on which version 1 is committed, over and over.
func installed(t *testing.T, c *cloud) func() *disk.Disk {
	t.Helper()
	var dsk *disk.Disk
	w := c.plan(c.release(t, 1, nil))
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, disk.New(roomy), &machine{})
		d.offer(w)
		if s := d.settle(); s.Outcome != wire.Committed {
			t.Fatalf("version 1: %+v", s)
		}
		d.stop()
		dsk = d.disk
	})
	return func() *disk.Disk { return dsk.AfterCut(disk.Lost) }
}

const v1, v2, v3 = "release/gate/1", "release/gate/2", "release/gate/3"

// mustRun says that the device answers with a release and would again after a
// restart.
func (d *device) mustRun(path string) {
	d.t.Helper()
	if got := d.m.answering(); got != path {
		d.t.Errorf("%q answers, wanted %q", got, path)
	}
	a, ok := d.Active()
	if !ok && path == "" {
		return
	}
	if !ok || a.Release.Path != path {
		d.t.Errorf("active is %q, wanted %q", a.Release.Path, path)
		return
	}
	if _, err := a.Model(); err != nil {
		d.t.Errorf("active model: %v", err)
	}
}
