package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/broker"
	"github.com/droverhq/drover/cloud/multicast"
)

const (
	loss     = 0.05
	late     = 0.10
	lateTill = 0.5 // of the model published
)

// hub is the hub's side of one round.
type hub struct {
	stage  *stage
	remote *broker.Remote
	count  *counter
	lost   *losses // on the way to the broker; nil: none
	server *multicast.Server
	up     chan struct{}
}

func (s *stage) newHub(w way) (*hub, error) {
	h := &hub{stage: s, count: &counter{}, up: make(chan struct{}, 1)}
	if w == lossy {
		h.lost = newLosses(loss, uint64(s.rounds))
	}
	var err error
	h.remote, err = broker.NewRemote(broker.RemoteConfig{
		Address: s.addr, Fleet: fleetName, Certificate: s.authority.HubCertificate(), CA: s.authority.Pool(), Log: s.log,
		OnUp: func(context.Context) { h.up <- struct{}{} },
	})
	if err != nil {
		return nil, err
	}
	topics := wire.Topics{Fleet: fleetName}
	h.server = multicast.New(multicast.Config{
		Allowed: func(_ context.Context, _, digest string) (int64, error) {
			b, ok := s.blobs[digest]
			if !ok {
				return 0, errNoBlob
			}
			return int64(len(b)), nil
		},
		Read: func(_ context.Context, digest string, p []byte, off int64) (int, error) {
			n := copy(p, s.blobs[digest][off:])
			if n < len(p) {
				return n, io.EOF
			}
			return n, nil
		},
		Publish: func(ctx context.Context, digest string, chunk int, data []byte) error {
			return h.publish(ctx, topics.BlobChunk(digest, chunk), data, 1, false)
		},
		Repair: func(ctx context.Context, device, digest string, chunk int, data []byte) error {
			return h.publish(ctx, topics.Repair(device, chunk), wire.Repair(digest, data), 1, false)
		},
		Logger: s.log,
	})
	return h, nil
}

// publish counts everything, and loses chunks.
func (h *hub) publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error {
	h.count.add(topic, len(payload))
	if !retained && h.lost != nil && h.lost.lose() {
		return nil
	}
	return h.remote.Publish(ctx, topic, payload, qos, retained)
}

// start brings the hub up and puts the signed metadata on the broker.
func (h *hub) start(ctx context.Context, g *errgroup.Group) error {
	topics := wire.Topics{Fleet: fleetName}
	if err := h.remote.Subscribe(ctx, topics.Devices(wire.LeafGet), 1, func(topic string, payload []byte) {
		if t, err := wire.ParseTopic(topic); err == nil {
			h.server.Request(t.Device, payload)
		}
	}); err != nil {
		return err
	}
	g.Go(func() error { return h.remote.Run(ctx) })
	g.Go(func() error { return h.server.Run(ctx) })
	select {
	case <-h.up:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, m := range h.stage.publication.Retained {
		if err := h.publish(ctx, topics.TrustRole(m.Role, m.Version), m.Raw, 1, true); err != nil {
			return err
		}
	}
	return h.publish(ctx, topics.TrustCurrent(), h.stage.publication.Current, 1, true)
}

// round runs all devices once.
func (s *stage) round(ctx context.Context, w way) (res result, err error) {
	s.rounds++
	dir := filepath.Join(s.dir, fmt.Sprint("round-", s.rounds))
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, s.o.limit)
	g, ctx := errgroup.WithContext(ctx)
	defer func() { // before the folder goes
		cancel()
		err = errors.Join(err, g.Wait())
	}()
	h, err := s.newHub(w)
	if err != nil {
		return res, err
	}
	if err := h.start(ctx, g); err != nil {
		return res, err
	}
	devices := make([]*client, s.o.clients)
	for i := range devices {
		if devices[i], err = s.newClient(filepath.Join(dir, device(i)), i, w); err != nil {
			return res, err
		}
		g.Go(func() error { return devices[i].run(ctx) })
	}
	for _, d := range devices {
		if err := d.online(ctx); err != nil {
			return res, err
		}
	}
	start, done := time.Now(), make(chan time.Duration, len(devices))
	if w == plain {
		err = s.plainLoop(ctx, h, devices, done, start)
	} else {
		err = s.fetchAll(ctx, h, devices, w, done, start)
	}
	if err != nil {
		return res, err
	}
	res.wall = time.Since(start)
	close(done)
	res.first = res.wall
	for d := range done {
		res.first = min(res.first, d)
		res.done++
	}
	st := h.server.Stats()
	res.ratio = float64(h.count.total()) / float64(s.model.Size)
	res.sent = fmt.Sprintf("%d chunks, %d of them again to all, %d to one; %d requests", st.Chunks, st.Second, st.Repairs, st.Requests)
	return res, nil
}

// fetchAll lets the devices update, all at once or some of them late.
func (s *stage) fetchAll(ctx context.Context, h *hub, devices []*client, w way, done chan<- time.Duration, start time.Time) error {
	g, ctx := errgroup.WithContext(ctx)
	behind := 0
	if w != clean {
		behind = int(late * float64(len(devices)))
	}
	base := h.count.total()
	for i, d := range devices {
		var begin <-chan struct{}
		if k := i - (len(devices) - behind); k >= 0 {
			part := lateTill * float64(k+1) / float64(behind)
			begin = h.count.after(base + int64(part*float64(s.model.Size)))
		}
		g.Go(func() error {
			if begin != nil {
				select {
				case <-begin:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := d.update(ctx); err != nil {
				return fmt.Errorf("%s: %w", device(d.index), err)
			}
			done <- time.Since(start)
			return nil
		})
	}
	return g.Wait()
}

// plainLoop sends the model chunk by chunk to devices that only store it, over
// and over until every one has it whole.
func (s *stage) plainLoop(ctx context.Context, h *hub, devices []*client, done chan<- time.Duration, start time.Time) error {
	topics := wire.Topics{Fleet: fleetName}
	var wg sync.WaitGroup
	for _, d := range devices {
		wg.Go(func() { d.listen(ctx) })
	}
	wg.Wait()
	g, ctx := errgroup.WithContext(ctx)
	complete := make(chan struct{})
	for _, d := range devices {
		g.Go(func() error {
			if err := d.collect(ctx); err != nil {
				return err
			}
			done <- time.Since(start)
			if len(done) == cap(done) {
				close(complete)
			}
			return nil
		})
	}
	model := s.blobs[s.model.Digest]
	g.Go(func() error {
		for {
			for i := range s.model.Count() {
				b := model[i*wire.ChunkSize:]
				if err := h.publish(ctx, topics.BlobChunk(s.model.Digest, i), b[:s.model.ChunkLen(i)], 1, false); err != nil {
					return err
				}
			}
			select {
			case <-complete:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(30 * time.Second):
			}
		}
	})
	return g.Wait()
}
