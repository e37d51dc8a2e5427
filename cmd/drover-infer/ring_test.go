package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer/host/protocol"
)

// ring is a camera of the test's own.
type ring struct {
	t      *testing.T
	file   *os.File
	event  *os.File
	writer *camera.RingWriter
	seq    uint64
}

func newRing(t *testing.T) *ring {
	t.Helper()
	r := &ring{t: t}
	var err error
	if r.file, err = camera.NewRing(4, 32*96); err != nil {
		t.Fatal(err)
	}
	if r.writer, err = camera.OpenWriter(r.file); err != nil {
		t.Fatal(err)
	}
	if err = camera.SealRing(r.file); err != nil {
		t.Fatal(err)
	}
	if r.event, err = camera.NewEvent(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.writer.Close()
		r.file.Close()
		r.event.Close()
	})
	return r
}

// publish writes a frame without saying so.
func (r *ring) publish(f *camera.Frame) {
	r.t.Helper()
	r.seq++
	g := *f
	g.Seq, g.CapturedAt = r.seq, camera.Monotonic()
	if err := r.writer.Write(&g); err != nil {
		r.t.Fatal(err)
	}
}

func (r *ring) signal() {
	r.t.Helper()
	if err := camera.Signal(camera.EventFD(r.event)); err != nil {
		r.t.Fatal(err)
	}
}

func (p *parent) attach(source uint32, r *ring) {
	p.t.Helper()
	p.send(protocol.KindAttach, protocol.Attach{Source: source}, int(r.file.Fd()), camera.EventFD(r.event))
}

func TestRings(t *testing.T) {
	model := sample(t, "models/pretrainedResnet_quant.tflite")
	p := start(t)
	if _, refused := p.load(model, cifar(t, model), protocol.Runtime{}, 1<<20); refused != nil {
		t.Fatal(refused)
	}
	const step = 30
	want := map[byte][]byte{}
	for v := range byte(8) {
		want[v] = p.run(protocol.RunFrame, pattern(v*step)).Data
	}
	for v := range byte(5) {
		if bytes.Equal(want[v], want[v+1]) {
			t.Fatalf("patterns %d and %d cannot be told apart", v, v+1)
		}
	}
	left, right, late := newRing(t), newRing(t), newRing(t)
	// A frame whose turn comes too late is reported, not classified.
	p.send(protocol.KindAttach, protocol.Attach{Source: 9, MaxAgeMicros: 1}, int(late.file.Fd()), camera.EventFD(late.event))
	late.publish(pattern(0))
	late.signal()
	if r := p.result(); r.Source != 9 || r.Status != protocol.TooOld || r.ID != 1 || r.Dropped != 1 || r.InvokeNs != 0 || len(r.Data) != 0 {
		t.Errorf("too old: %+v", r)
	}
	p.attach(7, left)
	p.attach(0, right)

	left.publish(pattern(0))
	left.signal()
	r := p.result()
	if r.Source != 7 || r.ID != 1 || r.Dropped != 0 || !bytes.Equal(r.Data, want[0]) {
		t.Errorf("first frame: %+v", r)
	}
	if r.CapturedNs < 1 || r.StartNs < r.CapturedNs || r.PrepNs < 1 || r.InvokeNs < 1 {
		t.Errorf("times: %+v", r)
	}

	// Three frames, one signal: the newest counts, the others are dropped.
	for v := range byte(3) {
		left.publish(pattern((v + 1) * step))
	}
	left.signal()
	if r := p.result(); r.ID != 4 || r.Dropped != 2 || !bytes.Equal(r.Data, want[3]) {
		t.Errorf("newest of three: %+v", r)
	}

	// A signal without a frame has no result; the next answer is the Run's.
	left.signal()
	if r := p.run(protocol.RunFrame, pattern(5*step)); r.Source != protocol.RunSource || !bytes.Equal(r.Data, want[5]) {
		t.Errorf("after an empty signal: %+v", r)
	}

	right.publish(pattern(2 * step))
	right.signal()
	if r := p.result(); r.Source != 0 || r.ID != 1 || !bytes.Equal(r.Data, want[2]) {
		t.Errorf("other ring: %+v", r)
	}

	p.send(protocol.KindDetach, protocol.Detach{Source: 7})
	p.run(protocol.RunFrame, pattern(0)) // messages are served in order: it is detached now
	left.publish(pattern(1 * step))
	left.signal()
	right.publish(pattern(4 * step))
	right.signal()
	if r := p.result(); r.Source != 0 || r.ID != 2 || !bytes.Equal(r.Data, want[4]) {
		t.Errorf("after detach: %+v", r)
	}

	// The number is free again, and counts anew.
	p.attach(7, left)
	if r := p.result(); r.Source != 7 || r.ID != 5 || r.Dropped != 0 || !bytes.Equal(r.Data, want[1]) {
		t.Errorf("attached again: %+v", r)
	}
	p.send(protocol.KindStop, struct{}{})
	if code, said := p.exit(); code != 0 {
		t.Errorf("exit %d: %s", code, said)
	}
}

func TestAttachOfNoRingEndsTheChild(t *testing.T) {
	model := sample(t, "models/pretrainedResnet_quant.tflite")
	for _, name := range []string{"no ring", "taken"} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			if _, refused := p.load(model, cifar(t, model), protocol.Runtime{}, 1<<20); refused != nil {
				t.Fatal(refused)
			}
			r := newRing(t)
			if name == "taken" {
				p.attach(1, r)
			} else {
				r.file = p.memfd
			}
			p.attach(1, r)
			if code, said := p.exit(); code != exitError {
				t.Errorf("exit %d: %s", code, said)
			}
		})
	}
}
