package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/chunks"
	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/store"
	"github.com/droverhq/drover/ota/trust"
)

// client is one device: session, verifier, store and fetch are its own.
type client struct {
	stage  *stage
	index  int
	link   *link.Link
	store  *store.Store
	trust  *trust.Client
	source *chunks.Source
	fetch  *fetch.Fetcher
	lost   *losses // what should have arrived; nil: nothing
	seq    atomic.Uint64
	up     chan struct{}
	news   chan struct{}   // cap 1: metadata came
	plain  chan plainChunk // of the plain loop
}

type plainChunk struct {
	index int
	data  []byte
}

func (s *stage) newClient(dir string, i int, w way) (*client, error) {
	c := &client{stage: s, index: i, up: make(chan struct{}, 1), news: make(chan struct{}, 1), plain: make(chan plainChunk, 2*s.model.Count())}
	if w == independent {
		c.lost = newLosses(loss, uint64(s.rounds*10000+i))
	}
	d, err := store.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	if c.store, err = store.Open(d); err != nil {
		return nil, err
	}
	if c.trust, err = trust.Open(trust.Options{Store: c.store, Root: s.root, BuildTime: time.Now().Add(-24 * time.Hour), Logger: s.log}); err != nil {
		return nil, err
	}
	c.link, err = link.New(link.Config{
		Broker: s.addr, Fleet: fleetName, Device: device(i), Certificate: s.certs[i], CA: [][]byte{s.authority.CA()},
		Boot: fmt.Sprintf("boot-%d", s.rounds), Agent: "bench", Log: s.log, KeepAlive: 2 * time.Minute,
		OnState: func(st link.State) {
			if st.Connected {
				select {
				case c.up <- struct{}{}:
				default:
				}
			}
		},
	})
	if err != nil {
		return nil, err
	}
	c.source = chunks.New(chunks.Config{
		Fleet: fleetName, Device: device(i), Link: c.link, Logger: s.log,
		Header: func() wire.Header {
			return wire.Header{V: wire.Version, Boot: fmt.Sprintf("boot-%d", s.rounds), Seq: c.seq.Add(1), At: time.Now().UnixMilli()}
		},
		Deliver: func(digest string, chunk int, data []byte) {
			if c.lost == nil || !c.lost.lose() {
				c.fetch.Deliver(digest, chunk, data)
			}
		},
	})
	c.fetch = fetch.New(fetch.Config{Source: c.source, Logger: s.log})
	return c, nil
}

// run keeps the session.
func (c *client) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.link.Run(ctx) })
	g.Go(func() error { return c.source.Run(ctx) })
	return g.Wait()
}

func (c *client) online(ctx context.Context) error {
	select {
	case <-c.up:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// update is what a device does from the first word of a release to a model that
// is stored whole.
func (c *client) update(ctx context.Context) error {
	order, err := c.order(ctx)
	if err != nil {
		return err
	}
	raw, err := c.get(ctx, order.Ref())
	if err != nil {
		return err
	}
	rel, err := order.Verify(raw)
	if err != nil {
		return err
	}
	v := rel.Manifest().Variants[0]
	for _, ref := range []wire.BlobRef{v.Golden, v.Model} {
		if _, err := c.get(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// order waits for metadata that names a release for this device.
func (c *client) order(ctx context.Context) (*trust.Order, error) {
	topics := wire.Topics{Fleet: fleetName}
	err := c.link.Subscribe(ctx, topics.TrustAll(), 1, func(topic string, payload []byte) {
		t, err := wire.ParseTopic(topic)
		if err == nil && t.Trust == "current" {
			err = c.trust.OfferCurrent(payload)
		} else if err == nil {
			err = c.trust.OfferRole(t.Trust, t.Version, payload)
		}
		if err != nil {
			c.stage.log.Debug("metadata", "topic", topic, "error", err)
		}
		select {
		case c.news <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	for {
		var missing *trust.MissingError
		if err := c.trust.Refresh(); err != nil && !errors.As(err, &missing) {
			return nil, err
		}
		o, err := c.trust.Select(device(c.index), nil)
		if o != nil || err != nil && !errors.As(err, &missing) {
			return o, err
		}
		select {
		case <-c.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// get fetches a blob into the store, which checks it as a whole.
func (c *client) get(ctx context.Context, ref wire.BlobRef) ([]byte, error) {
	blobs := c.store.Blobs()
	part, err := blobs.Part(ref.Digest)
	if err != nil {
		return nil, err
	}
	err = c.fetch.Fetch(ctx, ref, part, fetch.NewBudget(2*ref.Size+1<<20, 0), nil)
	if err = errors.Join(err, part.Close()); err != nil {
		return nil, err
	}
	if err := blobs.Put(ref.Digest); err != nil {
		return nil, err
	}
	if ref.Size > wire.MaxManifest {
		return nil, blobs.Check(ref.Digest)
	}
	return blobs.Read(ref.Digest, wire.MaxManifest)
}

// listen subscribes to the model's topic for the plain loop.
func (c *client) listen(ctx context.Context) {
	_ = c.link.Subscribe(ctx, wire.Topics{Fleet: fleetName}.BlobAll(c.stage.model.Digest), 0, func(topic string, payload []byte) {
		if t, err := wire.ParseTopic(topic); err == nil {
			select {
			case c.plain <- plainChunk{t.Chunk, payload}:
			default:
			}
		}
	}) // without it, collect runs into the deadline
}

// collect stores what comes until the model is whole.
func (c *client) collect(ctx context.Context) error {
	ref, blobs := c.stage.model, c.store.Blobs()
	part, err := blobs.Part(ref.Digest)
	if err != nil {
		return err
	}
	have := map[int]bool{}
	for len(have) < ref.Count() {
		select {
		case p := <-c.plain:
			if have[p.index] || !ref.CheckChunk(p.index, p.data) {
				continue
			}
			if _, err := part.WriteAt(p.data, int64(p.index)*wire.ChunkSize); err != nil {
				return errors.Join(err, part.Close())
			}
			have[p.index] = true
		case <-ctx.Done():
			return errors.Join(ctx.Err(), part.Close())
		}
	}
	if err := errors.Join(part.Sync(), part.Close()); err != nil {
		return err
	}
	return blobs.Put(ref.Digest)
}
