package broker_test

import (
	"testing"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/test/brokertest"
)

// A device returns before its old connection was found dead: the last word on
// its topic online must be the new session's.
func TestOldWillIsNotTheLastWord(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		s := newScene(t, f, srv.Addr())
		online := topics.Device(self, wire.LeafOnline)
		for range 20 {
			for range 2 {
				if _, err := s.dial(self, &brokertest.Will{Topic: online, Retain: true}); err != nil {
					t.Fatal(err)
				}
			}
			c, err := s.dial(self, &brokertest.Will{Topic: online, Retain: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Publish(online, []byte("here"), 1, true); err != nil {
				t.Fatal(err)
			}
			if err := c.Ping(); err != nil {
				t.Fatal(err)
			}
			m := s.mark()
			if err := c.Publish(topics.Device(self, wire.LeafEvent), m, 1, false); err != nil {
				t.Fatal(err)
			}
			all, err := s.hub.Wait(m)
			if err != nil {
				t.Fatal(err)
			}
			last := ""
			for _, g := range all {
				if g.Topic == online {
					last = string(g.Payload)
				}
			}
			if last != "here" {
				t.Fatalf("the last word is %q", last)
			}
		}
	})
}
