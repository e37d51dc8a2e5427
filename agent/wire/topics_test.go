package wire_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/droverhq/drover/agent/wire"
)

func TestTopicsRoundTrip(t *testing.T) {
	tp := wire.Topics{Fleet: "demo"}
	digest := wire.NewBlobRef(nil).Digest
	for topic, want := range map[string]wire.Topic{
		tp.TrustCurrent():                                {Fleet: "demo", Trust: "current"},
		tp.TrustRole("root", 1):                          {Fleet: "demo", Trust: "root", Version: 1},
		tp.TrustRole("models", 1<<62):                    {Fleet: "demo", Trust: "models", Version: 1 << 62},
		tp.BlobChunk(digest, 0):                          {Fleet: "demo", Blob: digest},
		tp.BlobChunk(digest, 8191):                       {Fleet: "demo", Blob: digest, Chunk: 8191},
		tp.Device("cam-1", wire.LeafOnline):              {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafOnline},
		tp.Device("cam-1", wire.LeafState):               {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafState},
		tp.Device("cam-1", wire.LeafEvent):               {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafEvent},
		tp.Device("cam-1", wire.LeafTelemetry):           {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafTelemetry},
		tp.Device("cam-1", wire.LeafGet):                 {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafGet},
		tp.Device("cam-1", wire.LeafDesired):             {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafDesired},
		tp.Device("cam-1", wire.LeafCommand):             {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafCommand},
		tp.Device("cam-1", wire.LeafSample) + "/abc":     {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafSample, Rest: "abc"},
		tp.Device("cam-1", wire.LeafBlob) + "/12":        {Fleet: "demo", Device: "cam-1", Leaf: wire.LeafBlob, Rest: "12"},
		"drover/v1/demo/d/" + wire.Shard("a") + "/a/get": {Fleet: "demo", Device: "a", Leaf: wire.LeafGet},
	} {
		got, err := wire.ParseTopic(topic)
		if err != nil || got != want {
			t.Errorf("%s: %+v %v, want %+v", topic, got, err, want)
		}
		if n := strings.Count(topic, "/"); n > 7 {
			t.Errorf("%s has %d slashes, some brokers allow 7", topic, n)
		}
	}
}

func TestParseTopicRefuses(t *testing.T) {
	digest := wire.NewBlobRef(nil).Digest
	wrongShard := "0"
	if wire.Shard("cam-1") == "0" {
		wrongShard = "1"
	}
	own := "drover/v1/demo/d/" + wire.Shard("cam-1") + "/cam-1/"
	for name, topic := range map[string]string{
		"nothing":                   "",
		"another protocol":          "drover/v2/demo/trust/current",
		"no fleet":                  "drover/v1//trust/current",
		"a fleet in capitals":       "drover/v1/Demo/trust/current",
		"a wildcard as fleet":       "drover/v1/+/trust/current",
		"a filter":                  "drover/v1/demo/trust/#",
		"a system topic":            "$SYS/broker/clients",
		"a slash in front":          "/drover/v1/demo/trust/current",
		"a slash behind":            "drover/v1/demo/trust/current/",
		"an unknown branch":         "drover/v1/demo/other/x",
		"an unknown role":           "drover/v1/demo/trust/snapshot/1",
		"a role without version":    "drover/v1/demo/trust/root",
		"version nought":            "drover/v1/demo/trust/root/0",
		"a version with nought":     "drover/v1/demo/trust/root/01",
		"a version with sign":       "drover/v1/demo/trust/root/+1",
		"a version too large":       "drover/v1/demo/trust/root/9223372036854775808",
		"a digest cut":              "drover/v1/demo/blob/" + digest[1:] + "/0",
		"a digest in capitals":      "drover/v1/demo/blob/" + strings.ToUpper(digest) + "/0",
		"a negative chunk":          "drover/v1/demo/blob/" + digest + "/-1",
		"a chunk too far":           "drover/v1/demo/blob/" + digest + "/8193",
		"another shard":             "drover/v1/demo/d/" + wrongShard + "/cam-1/state",
		"a device with a wildcard":  "drover/v1/demo/d/" + wire.Shard("+") + "/+/state",
		"a device without leaf":     strings.TrimSuffix(own, "/"),
		"an unknown leaf":           own + "secrets",
		"below a leaf":              own + "state/x",
		"a sample without id":       own + "sample",
		"a sample with an empty id": own + "sample/",
		"two levels below a sample": own + "sample/a/b",
		"too long":                  own + "sample/" + strings.Repeat("x", 256),
	} {
		if got, err := wire.ParseTopic(topic); !errors.Is(err, wire.ErrTopic) {
			t.Errorf("%s: %q gives %+v, %v", name, topic, got, err)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "cam-1": true, "0": true, "a-": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "A": false, "a_b": false, "a.b": false, "a/b": false, "a b": false, "+": false, "#": false, "ä": false, "a\x00": false,
		strings.Repeat("a", 64): false,
	} {
		if got := wire.ValidName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestToken(t *testing.T) {
	want := wire.Token{URL: "https://hub.example:8443", Pin: wire.NewBlobRef([]byte("pin")).Digest, Root: wire.NewBlobRef([]byte("root")).Digest, Fleet: "demo", Secret: strings.Repeat("s", 32)}
	got, err := wire.ParseToken(" " + want.String() + "\n")
	if err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	text := want.String()
	for name, edit := range map[string]func(tk *wire.Token) string{
		"not a token":      func(*wire.Token) string { return "hello" },
		"nothing":          func(*wire.Token) string { return "" },
		"cut":              func(*wire.Token) string { return text[:len(text)-9] },
		"a letter changed": func(*wire.Token) string { return strings.Replace(text, ".", ".!", 1) },
		"far too long":     func(*wire.Token) string { return text + strings.Repeat("A", 5000) },
		"without TLS":      func(tk *wire.Token) string { tk.URL = "http://hub"; return tk.String() },
		"without pin":      func(tk *wire.Token) string { tk.Pin = ""; return tk.String() },
		"without root":     func(tk *wire.Token) string { tk.Root = ""; return tk.String() },
		"without fleet":    func(tk *wire.Token) string { tk.Fleet = ""; return tk.String() },
		"a short secret":   func(tk *wire.Token) string { tk.Secret = "short"; return tk.String() },
	} {
		tk := want
		if got, err := wire.ParseToken(edit(&tk)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func FuzzParseTopic(f *testing.F) {
	tp := wire.Topics{Fleet: "demo"}
	for _, s := range []string{tp.TrustCurrent(), tp.TrustRole("root", 3), tp.BlobChunk(wire.NewBlobRef(nil).Digest, 2), tp.Device("cam-1", wire.LeafGet), tp.Device("cam-1", wire.LeafBlob) + "/1"} {
		if s == "" {
			f.Fatal("empty seed")
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := wire.ParseTopic(s)
		if err != nil {
			return
		}
		tp := wire.Topics{Fleet: got.Fleet}
		var again string
		switch {
		case got.Trust == "current":
			again = tp.TrustCurrent()
		case got.Trust != "":
			again = tp.TrustRole(got.Trust, got.Version)
		case got.Blob != "":
			again = tp.BlobChunk(got.Blob, got.Chunk)
		default:
			again = tp.Device(got.Device, got.Leaf)
			if got.Rest != "" {
				again += "/" + got.Rest
			}
		}
		if again != s {
			t.Errorf("%q reads as %+v, which is written %q", s, got, again)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	seed := wire.Token{URL: "https://h", Pin: wire.NewBlobRef(nil).Digest, Root: wire.NewBlobRef(nil).Digest, Fleet: "demo", Secret: strings.Repeat("s", 32)}.String()
	if seed == "" {
		f.Fatal("empty seed")
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, s string) {
		tk, err := wire.ParseToken(s)
		if err != nil {
			return
		}
		if again, err := wire.ParseToken(tk.String()); err != nil || again != tk {
			t.Errorf("%+v reads again as %+v, %v", tk, again, err)
		}
	})
}
