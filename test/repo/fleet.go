package repo

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/infer"
)

// Start is when every Fleet begins: a time that no machine's clock shows, so
// that a verifier which asks the clock is found out.
func Start() time.Time { return time.Date(2041, 3, 4, 5, 6, 7, 0, time.UTC) }

// Fleet is an honest fleet whose clock stands until Pass moves it.
type Fleet struct {
	Memory
	Keys      publish.Keys
	Time      time.Time
	Manifests map[string][]byte // by path
	t         testing.TB
}

// New makes a fleet with one key per role.
func New(t testing.TB) *Fleet {
	t.Helper()
	keys, err := publish.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return NewWith(t, keys, publish.InitOptions{})
}

// NewWith makes a fleet with the given keys; name and time are filled in.
func NewWith(t testing.TB, keys publish.Keys, o publish.InitOptions) *Fleet {
	t.Helper()
	f := &Fleet{Keys: keys, Time: Start(), Manifests: map[string][]byte{}, t: t}
	o.Fleet, o.Now = "testfleet", f.Time
	if _, err := publish.Init(context.Background(), f, keys, o); err != nil {
		t.Fatal(err)
	}
	return f
}

// Pass lets time pass for the hub.
func (f *Fleet) Pass(d time.Duration) { f.Time = f.Time.Add(d) }

// Root is the first root, as a device gets it at enrolment.
func (f *Fleet) Root() []byte {
	f.t.Helper()
	raw, err := f.Get(context.Background(), wire.RoleRoot, 1)
	if err != nil {
		f.t.Fatal(err)
	}
	return raw
}

// Release signs a small release and gives its path.
func (f *Fleet) Release(model string, version int) string {
	f.t.Helper()
	b := Manifest(model, version)
	path, err := publish.AddRelease(context.Background(), f, f.Keys[wire.RoleModels], b, f.Time)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Manifests[path] = b
	return path
}

// Roll makes one plan, for everybody, the only open one.
func (f *Fleet) Roll(id string, serial int64, release string) {
	f.t.Helper()
	if err := publish.SetPlans(context.Background(), f, f.Keys[wire.RoleRollouts], []wire.Plan{Plan(id, serial, release)}, f.Time); err != nil {
		f.t.Fatal(err)
	}
}

// Publish publishes and takes the result apart.
func (f *Fleet) Publish() *World {
	f.t.Helper()
	p, err := publish.Publish(context.Background(), f, f.Keys["snapshot"], f.Keys["timestamp"], f.Time)
	if err != nil {
		f.t.Fatal(err)
	}
	return take(f.t, p, f.Keys)
}

// Key makes a key that the fleet does not know.
func Key(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Plan is a plan for everybody.
func Plan(id string, serial int64, release string) wire.Plan {
	p := wire.Plan{V: wire.Version, ID: id, Serial: serial, Release: release, Selector: wire.Selector{Threshold: wire.Whole}}
	p.Probation.Frames, p.Probation.Seconds = 10, 60
	return p
}

// Manifest is a valid manifest of a model that does not exist.
func Manifest(model string, version int) []byte {
	quant := infer.Quant{Scales: []float32{1.0 / 255}, ZeroPoints: []int32{0}}
	return wire.Encode(wire.Manifest{
		V: wire.Version, Model: model, Version: version, Created: Start().Unix(),
		Variants: []wire.Variant{{
			Name:  "cpu",
			Model: wire.NewBlobRef([]byte(model)),
			Spec: infer.Spec{
				Contract: infer.Contract{
					Input:  infer.TensorSpec{Shape: []int{1, 8, 8, 1}, DType: infer.Uint8, Quant: quant},
					Output: infer.TensorSpec{Shape: []int{1, 2}, DType: infer.Uint8, Quant: quant},
				},
				Labels: []string{"cat", "dog"},
				Preprocess: infer.Preprocess{
					Color: infer.Gray, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear,
					Mean: []float32{0}, Std: []float32{255},
				},
				Postprocess: infer.DefaultPostprocess(),
			},
			Golden: wire.NewBlobRef([]byte("golden")),
		}},
	})
}

// SetPlans makes plans the only open ones.
func (f *Fleet) SetPlans(plans ...wire.Plan) {
	f.t.Helper()
	if err := publish.SetPlans(context.Background(), f, f.Keys[wire.RoleRollouts], plans, f.Time); err != nil {
		f.t.Fatal(err)
	}
}
