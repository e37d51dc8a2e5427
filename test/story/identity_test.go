package story

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/test/brokertest"
	"github.com/droverhq/drover/test/tinymodel"
)

// changeIdentity edits what a stopped device holds of its membership.
func (d *device) changeIdentity(edit func(*enroll.Identity)) {
	d.t.Helper()
	path := filepath.Join(d.dir, "state", "identity", "identity.json")
	b, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	var id enroll.Identity
	if err := json.Unmarshal(b, &id); err != nil {
		d.t.Fatal(err)
	}
	edit(&id)
	if b, err = json.Marshal(id); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// A device that meets the broker of another fleet, or is not wanted by its own
// any more, says so and goes on answering frames.
func TestADeviceWithTheWrongCertificateStaysAlive(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]brokerKind{"embedded": nil, "mosquitto": brokertest.Mosquitto} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := newWorld(t, nil), newWorld(t, kind)
			ours.startHub()
			theirs.startHub()
			v1 := ours.release(tinymodel.Options{Name: "one"})
			d := ours.deviceWith("gate-1", v1)

			d.stop()
			d.changeIdentity(func(id *enroll.Identity) { id.Broker = theirs.fleet.Settings.Broker.Public })
			d.start()
			d.goesOn(v1.Path)
			d.shows("that the broker is another's", func(s statuspage.Snapshot) bool {
				return !s.Connected && contains(s.LinkError, "broker", "certificate")
			})
			d.stop()
			// Now it takes the broker for its own, but the broker does not know it.
			d.changeIdentity(func(id *enroll.Identity) { id.CA = append(id.CA, theirs.fleet.Authority.CA()) })
			d.start()
			d.goesOn(v1.Path)
			d.shows("that its certificate is refused", func(s statuspage.Snapshot) bool {
				return !s.Connected && contains(s.LinkError, "certificate", "refused")
			})
			d.alive()
		})
	}
}

// A device that is revoked loses its session within seconds, says why, and goes
// on answering frames.
func TestARevokedDeviceIsThrownOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)
	if err := w.fleet.Revoke(t.Context(), "gate-1"); err != nil {
		t.Fatal(err)
	}
	d.shows("that its certificate is refused", func(s statuspage.Snapshot) bool {
		return !s.Connected && contains(s.LinkError, "certificate", "refused")
	})
	d.goesOn(v1.Path)
	d.alive()
}

// A token that is used up, lapsed, damaged or another hub's is refused with a
// message that says so; the device goes on, and enrols with a good one.
func TestABadTokenIsRefusedAndAGoodOneWorksAfterwards(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t, nil), newWorld(t, nil)
	w.startHub()
	other.startHub()
	used := w.token(time.Hour)
	first := makeDevice(t, "gate-1")
	first.write("enrolment-token", used.String())
	first.start()
	first.shows("membership", func(s statuspage.Snapshot) bool { return s.Connected })

	lapsed := w.token(time.Millisecond)
	wrongPin := w.token(time.Hour)
	wrongPin.URL = "https://" + other.fleet.Settings.Enroll.Public
	wrongRoot := w.token(time.Hour)
	wrongRoot.Root = wire.NewBlobRef([]byte("another root")).Digest
	noHub := w.token(time.Hour)
	noHub.URL = "https://" + freePort(t)

	d := makeDevice(t, "gate-2")
	d.configure(cameras("door", folder(pictures(t))))
	d.start()
	d.shows("that it waits for a token", func(s statuspage.Snapshot) bool {
		return s.Fleet == "" && contains(s.LinkError, "enrolment-token", "drover enroll")
	})
	for _, k := range []struct {
		name, token string
		says        []string
	}{
		{"used twice", used.String(), []string{"refused by the hub", "used"}},
		{"lapsed", lapsed.String(), []string{"refused by the hub", "expired"}},
		{"another hub answers", wrongPin.String(), []string{"not the hub that the token is from"}},
		{"another root", wrongRoot.String(), []string{"root.json"}},
		{"nobody answers", noHub.String(), []string{"connection refused"}},
		{"cut short", used.String()[:60], []string{"damaged"}},
		{"no token at all", "hello", []string{"drover1."}},
	} {
		d.write("enrolment-token", k.token)
		s := d.shows(k.name, func(s statuspage.Snapshot) bool { return contains(s.LinkError, k.says...) })
		if s.Fleet != "" || cameraOf(s, "door").Frames == 0 && cameraOf(s, "door").State == "failed" {
			t.Errorf("%s: %+v", k.name, s)
		}
	}
	d.alive()
	// The hub had enrolled the device that then refused its root: the name is
	// taken, and only a token that may replace it helps.
	replace, err := w.fleet.Token(t.Context(), time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	d.write("enrolment-token", replace.String())
	d.shows("membership", func(s statuspage.Snapshot) bool { return s.Connected && s.Fleet == brokertest.FleetName })
	for _, f := range files(t, filepath.Join(d.dir, "state")) {
		if filepath.Base(f) == "enrolment-token" {
			t.Error("the used token still lies there")
		}
	}
}
