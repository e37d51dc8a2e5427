package story

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/test/brokertest"
	"github.com/droverhq/drover/test/tinymodel"
)

// thief has the broker's power: it writes to any topic of the fleet.
type thief struct {
	t      *testing.T
	client mqtt.Client
	topics wire.Topics
}

// newThief connects with the hub's certificate, which takes the session from a
// hub that uses the same broker: start it while the hub is down.
func (w *world) newThief() *thief {
	w.t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tls://" + w.fleet.Settings.Broker.Public).SetClientID(identity.HubName).
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetTLSConfig(&tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: w.fleet.Authority.Pool(), ServerName: "127.0.0.1",
		Certificates: []tls.Certificate{w.fleet.Authority.HubCertificate()},
	}))
	h := &thief{t: w.t, client: c, topics: wire.Topics{Fleet: w.fleet.Settings.Fleet}}
	h.wait(c.Connect())
	w.t.Cleanup(func() { c.Disconnect(100) })
	return h
}

func (h *thief) wait(t mqtt.Token) {
	h.t.Helper()
	if !t.WaitTimeout(patience) || t.Error() != nil {
		h.t.Fatalf("thief: %v", t.Error())
	}
}

// retain publishes and retains.
func (h *thief) retain(topic string, payload []byte) {
	h.t.Helper()
	h.wait(h.client.Publish(topic, 1, true, payload))
}

// impose retains a whole publication.
func (h *thief) impose(p *publish.Publication) {
	h.t.Helper()
	for _, m := range p.Retained {
		h.retain(h.topics.TrustRole(m.Role, m.Version), m.Raw)
	}
	h.retain(h.topics.TrustCurrent(), p.Current)
}

// keys loads a fleet's role keys.
func keys(t *testing.T, f *cloud.Fleet) publish.Keys {
	t.Helper()
	out := publish.Keys{}
	for _, role := range publish.Roles() {
		var err error
		if out[role], err = (publish.KeyDir{Path: filepath.Join(f.Dir, "keys")}).Load(role, ""); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// sign publishes what the repository holds at a time of one's choice.
func sign(t *testing.T, f *cloud.Fleet, k publish.Keys, now time.Time) *publish.Publication {
	t.Helper()
	p, err := publish.Publish(t.Context(), f.Repo(), k["snapshot"], k["timestamp"], now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shortLived is a publication's current under a newer timestamp that lapses
// soon.
func shortLived(t *testing.T, p *publish.Publication, key crypto.Signer, life time.Duration) []byte {
	t.Helper()
	var cur wire.Current
	if err := wire.Decode(p.Current, wire.MaxCurrent, &cur); err != nil {
		t.Fatal(err)
	}
	var ts metadata.Metadata[metadata.TimestampType]
	if _, err := ts.FromBytes(cur.Timestamp); err != nil {
		t.Fatal(err)
	}
	ts.Signed.Version++
	ts.Signed.Expires = time.Now().Add(life).UTC().Truncate(time.Second)
	cur.Timestamp = resign(t, &ts, key)
	return wire.Encode(cur)
}

// resign signs metadata that was edited, by the one key that had signed it.
func resign[T metadata.Roles](t *testing.T, m *metadata.Metadata[T], key crypto.Signer) []byte {
	t.Helper()
	id := m.Signatures[0].KeyID
	m.ClearSignatures()
	body, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := key.Sign(rand.Reader, body, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	m.Signatures = []metadata.Signature{{KeyID: id, Signature: sig}}
	raw, err := m.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func published(t *testing.T, f *cloud.Fleet) *publish.Publication {
	t.Helper()
	p, err := publish.Published(t.Context(), f.Repo())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forged is a fleet of the same name with other keys that names a release.
func (w *world) forged(release string) *publish.Publication {
	w.t.Helper()
	evil, err := cloud.Init(w.t.Context(), filepath.Join(w.t.TempDir(), "evil"), cloud.InitOptions{Settings: w.fleet.Settings, Insecure: true})
	if err != nil {
		w.t.Fatal(err)
	}
	defer evil.Close()
	m, err := w.fleet.Manifest(w.t.Context(), release)
	if err != nil {
		w.t.Fatal(err)
	}
	m.Version += 100
	k := keys(w.t, evil)
	if _, err := publish.AddRelease(w.t.Context(), evil.Repo(), k[wire.RoleModels], wire.Encode(m), time.Now()); err != nil {
		w.t.Fatal(err)
	}
	plan := wire.Plan{V: wire.Version, ID: "forged", Serial: 1000, Release: m.Path(), Selector: wire.Selector{Threshold: wire.Whole}}
	plan.Probation.Frames, plan.Probation.Seconds = 1, 60
	if err := publish.SetPlans(w.t.Context(), evil.Repo(), k[wire.RoleRollouts], []wire.Plan{plan}, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	return sign(w.t, evil, k, time.Now())
}

// raw finds a role's bytes in a publication.
func raw(p *publish.Publication, role string) publish.Metadata {
	for _, m := range p.Retained {
		if m.Role == role && m.Version == p.Versions[role] {
			return m
		}
	}
	return publish.Metadata{}
}

func complained(r wire.Reason, texts ...string) func(wire.Event) bool {
	return func(e wire.Event) bool {
		return e.Kind == wire.EventTrust && e.Reason == r && contains(e.Message, texts...)
	}
}

// Whoever has the broker can withhold, but not forge: every message it makes up
// is refused by name, the device goes on, and takes the next genuine release.
func TestAStolenBrokerCannotForgeAnything(t *testing.T) {
	t.Parallel()
	w := newWorld(t, brokertest.Mosquitto)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one", Padding: 200_000})
	d := w.deviceWith("gate-1", v1)
	old := published(t, w.fleet) // with the plan of version 1
	v2 := w.release(tinymodel.Options{Name: "two", Padding: 200_000})
	eventually(t, "the newer metadata is published", func() bool {
		p := published(t, w.fleet)
		return p.Versions["timestamp"] > old.Versions["timestamp"] && p.Versions[wire.RoleModels] > old.Versions[wire.RoleModels]
	})
	d.shows("the newer metadata is trusted", func(s statuspage.Snapshot) bool { return s.State.Freshness == "current" })
	w.stopHub()
	genuine := published(t, w.fleet)
	h := w.newThief()

	t.Log("signed with other keys")
	h.impose(w.forged(v1.Path))
	d.said("refused for its signatures", complained(wire.ReasonSignature))

	t.Log("metadata of yesterday")
	h.retain(h.topics.TrustCurrent(), old.Current)
	d.said("refused as a rollback", complained(wire.ReasonRollback))

	t.Log("one byte of models changed, under a genuine timestamp")
	w.release(tinymodel.Options{Name: "three"})
	next := sign(t, w.fleet, keys(t, w.fleet), time.Now())
	models := raw(next, wire.RoleModels)
	changed := bytes.Clone(models.Raw)
	changed[bytes.Index(changed, []byte(`"sha256":"`))+12] ^= 1
	h.retain(h.topics.TrustRole(wire.RoleModels, models.Version), changed)
	h.retain(h.topics.TrustCurrent(), next.Current)
	d.said("refused for its digest", complained(wire.ReasonDigest, "models"))

	for _, k := range []struct {
		name    string
		topic   string
		payload []byte
		refused func(wire.Event) bool // nil: dropped without a word, and counted
	}{
		{"current cut short", h.topics.TrustCurrent(), genuine.Current[:len(genuine.Current)/2], complained(wire.ReasonMalformed, "current", "unexpected end")},
		{"models cut short", h.topics.TrustRole(wire.RoleModels, 77), models.Raw[:100], complained(wire.ReasonMalformed, "models")},
		{"no JSON", h.topics.TrustRole(wire.RoleRollouts, 78), []byte("\x00\xff\x13 garbage"), complained(wire.ReasonMalformed, "rollouts")},
		{"another version", h.topics.TrustRole(wire.RoleModels, 79), models.Raw, complained(wire.ReasonSequence, "models", "version 79")},
		{"another version of the protocol", h.topics.TrustCurrent(), bytes.Replace(genuine.Current, []byte(`"v":1`), []byte(`"v":9`), 1), complained(wire.ReasonMalformed, "current", "version 9")},
	} {
		t.Log(k.name)
		h.retain(k.topic, k.payload)
		d.said(k.name, k.refused)
	}
	t.Log("too large")
	h.retain(h.topics.TrustRole(wire.RoleModels, 81), bytes.Repeat([]byte(" "), wire.MaxMessage-10))
	for i := range 300 {
		h.wait(h.client.Publish(h.topics.BlobChunk(hex.EncodeToString(bytes.Repeat([]byte{byte(i)}, sha256.Size)), i), 0, false, []byte("garbage")))
	}
	d.goesOn(v1.Path)
	if s, _ := d.snapshot(); s.State.Root != 1 || s.State.Update.State != wire.Idle {
		t.Errorf("root %d, update %+v", s.State.Root, s.State.Update)
	}

	t.Log("the genuine hub comes back")
	w.startHub()
	w.rolloutIs(w.rollOut(v2.Path).ID, rollout.Done)
	d.answers(v2.Path)
	if n := w.count("gate-1", func(e wire.Event) bool {
		return e.Kind == wire.EventUpdate && e.Release != v1.Path && e.Release != v2.Path
	}); n != 0 {
		t.Errorf("%d update events of a release nobody signed", n)
	}
}

// A chunk that was altered, in the registry or on the wire, is dropped and
// counted; nothing of it is installed, and the update succeeds once the good
// one comes.
func TestAnAlteredChunkIsNeverInstalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)
	v2 := w.release(tinymodel.Options{Name: "two", Padding: 300_000})
	ref, path := w.model(v2)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[2*wire.ChunkSize+17] ^= 0x40
	overwrite(t, path, bad)

	ro := w.rollOut(v2.Path)
	s := d.shows("altered chunks are counted", func(s statuspage.Snapshot) bool { return s.Fetch.Corrupt >= 2 })
	if s.State.Update.State != wire.Fetch {
		t.Errorf("update %+v", s.State.Update)
	}
	d.goesOn(v1.Path)
	for _, f := range files(t, filepath.Join(d.dir, "state")) {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, bad[2*wire.ChunkSize:2*wire.ChunkSize+64]) {
			t.Errorf("altered bytes stand in %s", f)
		}
	}
	overwrite(t, path, good)
	w.rolloutIs(ro.ID, rollout.Done)
	d.answers(v2.Path)
	s = d.shows("the signed model", func(s statuspage.Snapshot) bool { return s.Model.Digest == ref.Digest })
	for _, f := range files(t, filepath.Join(d.dir, "state")) {
		if filepath.Base(f) != ref.Digest {
			continue
		}
		if b, err := os.ReadFile(f); err != nil || !bytes.Equal(b, good) {
			t.Errorf("%s is not what was signed (%v)", f, err)
		}
	}
	if s.Fetch.Good < uint64(ref.Count()) {
		t.Errorf("%+v", s.Fetch)
	}
}

func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// files are all files below a folder; ones that vanish meanwhile are left out.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	if err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			out = append(out, p)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// A broker that is frozen lets the metadata lapse: the device says so, goes on
// answering, takes no update, and recovers with the next publication.
func TestExpiredMetadataStopsUpdatesAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, brokertest.Mosquitto)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)
	v2 := w.release(tinymodel.Options{Name: "two"})
	w.stopHub()

	// A timestamp that has only seconds left.
	k := keys(t, w.fleet)
	h := w.newThief()
	h.retain(h.topics.TrustCurrent(), shortLived(t, published(t, w.fleet), k["timestamp"][0], 3*time.Second))
	d.shows("that it is stale", func(s statuspage.Snapshot) bool { return s.State.Freshness == "stale" })
	d.goesOn(v1.Path)

	// A plan for version 2 under a timestamp that has lapsed.
	plan := wire.Plan{V: wire.Version, ID: "late", Serial: 50, Release: v2.Path, Selector: wire.Selector{Threshold: wire.Whole}}
	plan.Probation.Frames, plan.Probation.Seconds = 10, 60
	if err := publish.SetPlans(t.Context(), w.fleet.Repo(), k[wire.RoleRollouts], []wire.Plan{plan}, time.Now()); err != nil {
		t.Fatal(err)
	}
	lapsed := sign(t, w.fleet, k, time.Now())
	lapsed.Current = shortLived(t, lapsed, k["timestamp"][0], 0)
	time.Sleep(time.Second) // so that it has lapsed: expiry is in whole seconds
	h.impose(lapsed)
	d.said("refused as expired", complained(wire.ReasonExpired))
	d.goesOn(v1.Path)
	if s, _ := d.snapshot(); s.State.Freshness != "stale" || s.State.Update.State != wire.Idle || s.State.Update.Release == v2.Path {
		t.Errorf("freshness %s, update %+v", s.State.Freshness, s.State.Update)
	}

	w.startHub()
	d.shows("that it is current", func(s statuspage.Snapshot) bool { return s.State.Freshness == "current" })
	w.rolloutIs(w.rollOut(v2.Path).ID, rollout.Done)
	d.answers(v2.Path)
}
