package ota

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/droverhq/drover/agent/wire"
)

func TestMailboxKeepsTheNewestAndCountsTheRest(t *testing.T) {
	m := newMailbox()
	for i := range 5 {
		m.putCurrent(fmt.Append(nil, i))
	}
	for i := range maxOffers + 3 {
		m.putRole(roleOffer{wire.RoleModels, int64(i), []byte("x")})
	}
	if got := m.droppedCount(); got != 4+3 {
		t.Errorf("%d dropped", got)
	}
	select {
	case <-m.wake:
	default:
		t.Error("nobody is woken")
	}
	current, roles := m.take()
	if string(current) != "4" || len(roles) != maxOffers || roles[0].version != 3 || roles[maxOffers-1].version != maxOffers+2 {
		t.Errorf("current %q, %d roles from version %d", current, len(roles), roles[0].version)
	}
	if current, roles = m.take(); current != nil || roles != nil {
		t.Error("taken twice")
	}
}

func TestMailboxDropsWhatIsTooLarge(t *testing.T) {
	m := newMailbox()
	m.putCurrent([]byte("good"))
	m.putCurrent(make([]byte, wire.MaxCurrent+1))
	m.putRole(roleOffer{wire.RoleModels, 1, make([]byte, wire.MaxModels+1)})
	m.putRole(roleOffer{"nobody", 1, []byte("x")})
	current, roles := m.take()
	if string(current) != "good" || len(roles) != 0 || m.droppedCount() != 3 {
		t.Errorf("current %q, %d roles, %d dropped", current, len(roles), m.droppedCount())
	}
}

func TestMessagesAreBounded(t *testing.T) {
	s := inState(wire.Check)
	for _, msg := range []string{strings.Repeat("ä", 1<<20), string(bytes.Repeat([]byte{0xff}, 10_000)), "short"} {
		n, acts := Next(s, Input{Kind: Fail, Reason: wire.ReasonModel, Message: msg})
		for _, got := range []string{n.Last.Message, acts[1].Event.Message} {
			if len(got) > maxMessage || !utf8.ValidString(got) || msg == "short" && got != msg {
				t.Errorf("%d bytes of message", len(got))
			}
		}
	}
}
