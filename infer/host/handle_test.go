package host

import (
	"encoding/binary"
	"log/slog"
	"testing"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host/protocol"
)

// FuzzConversation plays arbitrary messages of a child to the parent's state
// machine, while a request waits and a ring is attached. Nothing may panic, a
// result that is handed on has the contract's size, and what lies behind the
// caller's buffer stays as it was.
func FuzzConversation(f *testing.F) {
	packet := func(kind byte, payload []byte) []byte {
		return append(binary.LittleEndian.AppendUint16([]byte{kind}, uint16(len(payload))), payload...)
	}
	answer := protocol.Result{Source: protocol.RunSource, ID: 1, Data: []byte{1, 2, 3}}
	ring := protocol.Result{Source: 7, ID: 9, Data: []byte{1, 2, 3}}
	ready, err := protocol.Encode(protocol.Loaded{Contract: fakeContract(), Delegate: protocol.Builtin})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, packet(protocol.KindLoaded, ready))
	f.Add(true, packet(protocol.KindRefused, []byte(`{"kind":"model","message":"no"}`)))
	f.Add(false, append(packet(protocol.KindResult, answer.Append(nil)), packet(protocol.KindResult, ring.Append(nil))...))
	f.Add(false, packet(protocol.KindFault, []byte(`{"message":"x"}`)))
	f.Fuzz(func(t *testing.T, beforeLoad bool, stream []byte) {
		c := &Child{logger: slog.New(slog.DiscardHandler), process: new(cage.Process), sources: map[uint32]bool{7: true, 8: false}}
		whole := []byte{0, 0, 0, 0xaa, 0xaa}
		if beforeLoad {
			c.phase, c.waiting = loading, &request{spec: fakeSpec(), answered: make(chan struct{})}
			c.sources = map[uint32]bool{}
		} else {
			c.phase, c.contract, c.spec = loaded, fakeContract(), true
			c.waiting = &request{id: 1, out: whole[:3:3], answered: make(chan struct{})}
		}
		c.OnResult(func(r *protocol.Result) {
			if r.Source != 7 || (r.Status == protocol.OK && len(r.Data) != 3) || len(r.Data) > messageBytes {
				t.Fatalf("handed on: %+v", r)
			}
		})
		for len(stream) >= 3 {
			n := min(int(binary.LittleEndian.Uint16(stream[1:])), len(stream)-3)
			if err := c.handle(&ipc.Message{Kind: stream[0], Payload: stream[3 : 3+n]}); err != nil {
				break
			}
			stream = stream[3+n:]
		}
		if whole[3] != 0xaa || whole[4] != 0xaa {
			t.Fatal("written behind the buffer")
		}
	})
}
