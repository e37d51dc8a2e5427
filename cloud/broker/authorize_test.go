package broker

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/droverhq/drover/agent/wire"
)

func TestAuthorize(t *testing.T) {
	cam := Identity{Fleet: "f", Name: "cam-1"}
	hub := Identity{Fleet: "f", Name: HubName}
	w := wire.Topics{Fleet: "f"}
	own := func(l wire.Leaf) string { return w.Device("cam-1", l) }
	for _, c := range []struct {
		id      Identity
		action  Action
		topic   string
		allowed bool
	}{
		{cam, Write, own(wire.LeafOnline), true},
		{cam, Write, own(wire.LeafGet), true},
		{cam, Write, own(wire.LeafSample) + "/x", true},
		{cam, Write, own(wire.LeafRenew), true},
		{cam, Write, own(wire.LeafCertificate), false},
		{cam, Write, w.Device("cam-2", wire.LeafRenew), false},
		{cam, Read, own(wire.LeafCertificate), true},
		{cam, Read, own(wire.LeafRenew), false},
		{cam, Read, w.Device("cam-2", wire.LeafCertificate), false},
		{cam, Write, own(wire.LeafSample), false},
		{cam, Write, own(wire.LeafSample) + "/+", false},
		{cam, Write, own(wire.LeafCommand), false},
		{cam, Write, w.Device("cam-2", wire.LeafState), false},
		{cam, Write, w.TrustCurrent(), false},
		{cam, Write, "", false},
		{cam, Write, wire.Topics{Fleet: "g"}.Device("cam-1", wire.LeafState), false},
		{cam, Read, w.TrustAll(), true},
		{cam, Read, w.TrustCurrent(), true},
		{cam, Read, "drover/v1/f/trust/+/3", true},
		{cam, Read, "drover/v1/f/blob/#", true},
		{cam, Read, own(wire.LeafCommand), true},
		{cam, Read, own(wire.LeafBlob) + "/+", true},
		{cam, Read, own(wire.LeafBlob) + "/7", true},
		{cam, Read, own(wire.LeafState), false},
		{cam, Read, "drover/v1/f/d/" + wire.Shard("cam-1") + "/cam-1/#", false},
		{cam, Read, "drover/v1/f/d/" + wire.Shard("cam-1") + "/+/command", false},
		{cam, Read, "drover/v1/f/trust", false},
		{cam, Read, "drover/v1/f/trust/", false},
		{cam, Read, "drover/v1/+/trust/#", false},
		{cam, Read, "drover/v1/f/+/current", false},
		{cam, Read, "drover/v1/f/#", false},
		{cam, Read, "+/v1/f/trust/#", false},
		{cam, Read, "#", false},
		{cam, Read, "$SYS/#", false},
		{cam, Read, "$share/g/" + w.TrustAll(), false},
		{cam, Read, "/drover/v1/f/trust/#", false},
		{cam, Read, w.TrustAll() + strings.Repeat("x", 300), false},
		{cam, "", w.TrustAll(), false},
		{hub, Write, w.TrustCurrent(), true},
		{hub, Write, w.Device("cam-1", wire.LeafCommand), true},
		{hub, Write, "drover/v1/f/#", false},
		{hub, Read, "drover/v1/f/#", true},
		{hub, Read, w.Devices(wire.LeafState), true},
		{hub, Read, "drover/v1/g/#", false},
		{hub, Read, "drover/v1/+/d/#", false},
		{hub, Read, "#", false},
		{hub, Read, "$SYS/#", false},
		{hub, Read, "$share/g/drover/v1/f/#", false},
		{Identity{Fleet: "f"}, Read, w.TrustAll(), false},
		{Identity{Name: "cam-1"}, Read, "drover/v1//trust/#", false},
		{Identity{Fleet: "f", Name: "+"}, Read, w.TrustAll(), false},
		{Identity{Fleet: "f", Name: "a/b"}, Read, w.TrustAll(), false},
		{Identity{}, Write, "", false},
	} {
		if err := Authorize(c.id, c.action, c.topic); (err == nil) != c.allowed {
			t.Errorf("%q %s %q: %v", c.id.Name, c.action, c.topic, err)
		}
	}
}

func TestWill(t *testing.T) {
	cam := Identity{Fleet: "f", Name: "cam-1"}
	w := wire.Topics{Fleet: "f"}
	for topic, allowed := range map[string]bool{
		w.Device("cam-1", wire.LeafOnline): true,
		w.Device("cam-1", wire.LeafState):  false,
		w.Device("cam-2", wire.LeafOnline): false,
		w.TrustCurrent():                   false,
		"":                                 false,
	} {
		if err := authorizeWill(cam, topic, true); (err == nil) != allowed {
			t.Errorf("%q: %v", topic, err)
		}
	}
}

// Whatever a device may read matches nothing of another device.
func FuzzAuthorizeRead(f *testing.F) {
	for _, s := range []string{"drover/v1/f/trust/#", "drover/v1/f/d/+/+/command", "#", "+/+/+/#", "drover/v1/f/blob/../d/#"} {
		f.Add(s)
	}
	cam := Identity{Fleet: "f", Name: "cam-1"}
	w := wire.Topics{Fleet: "f"}
	foreign := []string{w.Device("cam-2", wire.LeafCommand), w.Device("cam-2", wire.LeafBlob) + "/1", w.Device("cam-1", wire.LeafState), "$SYS/broker/version"}
	f.Fuzz(func(t *testing.T, filter string) {
		if Authorize(cam, Read, filter) != nil {
			return
		}
		for _, topic := range foreign {
			if covers(strings.Split(filter, "/"), strings.Split(topic, "/")) {
				t.Errorf("%q covers %q", filter, topic)
			}
		}
	})
}

// covers is the specification's matching of a filter, level by level.
func covers(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	}
	return (filter[0] == "+" || filter[0] == topic[0]) && covers(filter[1:], topic[1:])
}

func TestPayloadsAreNotLogged(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(&quiet{inner: slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})})
	log.Warn("error processing packet", "client", "cam-1", "pk", "SECRET")
	if s := b.String(); strings.Contains(s, "SECRET") || !strings.Contains(s, "cam-1") || !strings.Contains(s, "level=INFO") {
		t.Errorf("logged %s", s)
	}
}

func TestWithoutChunks(t *testing.T) {
	packet := func(topic string, qos byte, n int) []byte {
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, TopicName: topic, Payload: make([]byte, n), ProtocolVersion: 4, PacketID: 7}
		var b bytes.Buffer
		if err := pk.PublishEncode(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	w := wire.Topics{Fleet: "f"}
	chunk, trust, small := packet(w.BlobChunk("ab", 3), 0, wire.ChunkSize), packet(w.TrustCurrent(), 1, 500), packet(w.TrustCurrent(), 0, 3)
	in := slices.Concat(chunk, trust, chunk, small, chunk)
	rest, n := withoutChunks(in)
	if n != 3 || !bytes.Equal(rest, slices.Concat(trust, small)) {
		t.Errorf("%d dropped, %d bytes left", n, len(rest))
	}
	cut := in[:len(in)-5]
	if rest, n := withoutChunks(cut); n != 2 || len(rest) != len(cut)-2*len(chunk) {
		t.Errorf("cut off: %d dropped, %d bytes left", n, len(rest))
	}
	if rest, n := withoutChunks([]byte{0x30}); n != 0 || len(rest) != 1 {
		t.Error("one byte was not passed on")
	}
}
