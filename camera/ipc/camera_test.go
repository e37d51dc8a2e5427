package ipc

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/droverhq/drover/camera"
)

// examples has one valid message of each kind, as it stands on the wire.
var examples = []struct {
	kind byte
	json string
	make func() payload
}{
	{KindHello, `{"program":"1.0","opencv":"4.6.0"}`, func() payload { return new(Hello) }},
	{KindSealed, `{"seccomp":true,"gaps":["no Landlock"]}`, func() payload { return new(Sealed) }},
	{KindOpenSource, `{"config":{"source":"folder:///p?loop=true","open_timeout":1000000000}}`, func() payload { return new(OpenSource) }},
	{KindMapped, `{}`, func() payload { return new(Mapped) }},
	{KindStop, `{}`, func() payload { return new(Stop) }},
	{KindOpened, `{"width":640,"height":480,"fps":29.97,"backend":"V4L2"}`, func() payload { return new(Opened) }},
	{KindAddReader, `{"id":7}`, func() payload { return new(AddReader) }},
	{KindRemoveReader, `{"id":4294967295}`, func() payload { return new(RemoveReader) }},
	{KindPreviewRequest, `{"id":1,"width":320,"quality":80}`, func() payload { return new(PreviewRequest) }},
	{KindPreviewReply, `{"id":1,"width":320,"height":240,"seq":99,"captured_ns":5}`, func() payload { return new(PreviewReply) }},
	{KindPreviewReply, `{"id":1,"missing":"no frame yet"}`, func() payload { return new(PreviewReply) }},
	{KindStats, `{"frames":9,"dropped":1,"fps":4.5,"width":64,"height":48,"last_seq":9,"last_ns":123}`, func() payload { return new(Stats) }},
	{KindFault, `{"kind":"stalled","message":"no frame for 2s"}`, func() payload { return new(Fault) }},
}

func TestPayloadsAreUnderstoodAsWritten(t *testing.T) {
	parent, child := pair(t)
	buf := make([]byte, MaxMessage)
	for _, tt := range examples {
		got := tt.make()
		if err := DecodePayload([]byte(tt.json), got); err != nil {
			t.Errorf("%s: %v", tt.json, err)
			continue
		}
		if err := parent.SendPayload(tt.kind, got); err != nil {
			t.Errorf("%s: %v", tt.json, err)
			continue
		}
		msg, err := child.Recv(buf)
		if err != nil {
			t.Fatal(err)
		}
		if msg.Kind != tt.kind || string(msg.Payload) != tt.json {
			t.Errorf("kind %d: sent as %s, want %s", tt.kind, msg.Payload, tt.json)
		}
		again := tt.make()
		if err := DecodePayload(msg.Payload, again); err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
	}
}

func TestKindsAreDistinctAndHaveADirection(t *testing.T) {
	toChild := []byte{KindOpenSource, KindAddReader, KindRemoveReader, KindPreviewRequest, KindStop}
	fromChild := []byte{KindHello, KindSealed, KindMapped, KindOpened, KindPreviewReply, KindStats, KindFault}
	seen := map[byte]bool{}
	for i, k := range append(toChild, fromChild...) {
		if odd := k%2 == 1; odd != (i < len(toChild)) {
			t.Errorf("kind %d goes the wrong way", k)
		}
		if seen[k] {
			t.Errorf("kind %d stands for two messages", k)
		}
		seen[k] = true
	}
}

func TestPayloadsAreStrict(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	for _, tt := range []struct {
		name string
		json string
		out  payload
	}{
		{"empty", ``, new(Stats)},
		{"cut", `{"frames":9,"dro`, new(Stats)},
		{"trailing object", `{}{}`, new(Stop)},
		{"trailing text", `{} x`, new(Stop)},
		{"unknown field", `{"program":"1","shell":"sh"}`, new(Hello)},
		{"wrong type", `{"id":"7"}`, new(AddReader)},
		{"id under 0", `{"id":-1}`, new(AddReader)},
		{"id over 32 bits", `{"id":4294967296}`, new(AddReader)},
		{"array", `[]`, new(Hello)},
		{"long text", `{"program":"` + long + `"}`, new(Hello)},
		{"too many gaps", `{"gaps":[` + strings.Repeat(`"g",`, maxGaps) + `"g"]}`, new(Sealed)},
		{"no source", `{"config":{}}`, new(OpenSource)},
		{"bad source", `{"config":{"source":"ftp://x"}}`, new(OpenSource)},
		{"timeout of hours", `{"config":{"source":"/dev/video0","open_timeout":99999999999999}}`, new(OpenSource)},
		{"no width", `{"width":0,"height":480}`, new(Opened)},
		{"huge width", `{"width":100000,"height":480}`, new(Opened)},
		{"negative fps", `{"width":1,"height":1,"fps":-1}`, new(Opened)},
		{"endless fps", `{"width":1,"height":1,"fps":1e300}`, new(Opened)},
		{"preview of nothing", `{"id":1}`, new(PreviewRequest)},
		{"preview too wide", `{"id":1,"width":1921,"quality":80}`, new(PreviewRequest)},
		{"preview quality", `{"id":1,"width":320,"quality":101}`, new(PreviewRequest)},
		{"reply without size", `{"id":1}`, new(PreviewReply)},
		{"reply before time", `{"id":1,"width":1,"height":1,"captured_ns":-5}`, new(PreviewReply)},
		{"stats before time", `{"last_ns":-5}`, new(Stats)},
		{"stats of a negative size", `{"width":-5}`, new(Stats)},
		{"unknown fault", `{"kind":"shrug","message":""}`, new(Fault)},
		{"fault without kind", `{"message":"x"}`, new(Fault)},
		{"long fault", `{"kind":"stalled","message":"` + long + `"}`, new(Fault)},
	} {
		if err := DecodePayload([]byte(tt.json), tt.out); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: decoded as %+v, %v", tt.name, tt.out, err)
		}
	}
	if err := DecodePayload(make([]byte, MaxMessage+1), new(Stop)); !errors.Is(err, ErrProtocol) {
		t.Errorf("oversized payload: %v", err)
	}
}

func TestSendPayloadRefusesWhatTheOtherSideWould(t *testing.T) {
	parent, _ := pair(t)
	if err := parent.SendPayload(KindFault, &Fault{Kind: "shrug"}); err == nil {
		t.Error("an unknown fault was sent")
	}
	if err := parent.SendPayload(KindOpenSource, &OpenSource{Config: camera.Config{Source: "rtsp://u:geheim@h:0/"}}); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a bad source: %v", err)
	}
}

// Whatever decodes is in range and survives another trip.
func FuzzDecodePayload(f *testing.F) {
	for i, tt := range examples {
		f.Add(byte(i), []byte(tt.json))
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		tt := examples[int(which)%len(examples)]
		got := tt.make()
		if err := DecodePayload(data, got); err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		again := tt.make()
		if err := DecodePayload(b, again); err != nil {
			t.Fatalf("%s became %s: %v", data, b, err)
		}
	})
}
