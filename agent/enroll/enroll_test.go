package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
)

var rootJSON = []byte(`{"signed":"root"}`)

// fakeHub answers every request; alter changes a good answer.
func fakeHub(t *testing.T, alter func(r *wire.EnrollResponse), reply http.HandlerFunc) (token string) {
	t.Helper()
	a, err := identity.Create(t.TempDir(), "yard", nil, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if reply == nil {
		reply = func(w http.ResponseWriter, q *http.Request) {
			var in wire.EnrollRequest
			if err := json.NewDecoder(q.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			c, err := a.IssueDevice(in.Device, in.CSR)
			if err != nil {
				t.Error(err)
				return
			}
			out := &wire.EnrollResponse{
				V: 1, Fleet: "yard", Device: in.Device, Chain: c.Chain, CA: [][]byte{a.CA()}, Broker: "hub.example:8883", Root: rootJSON,
			}
			if alter != nil {
				alter(out)
			}
			_, _ = w.Write(wire.Encode(out))
		}
	}
	srv := httptest.NewUnstartedServer(reply)
	srv.TLS = a.HTTPSConfig()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	sum := sha256.Sum256(rootJSON)
	return wire.Token{URL: srv.URL, Pin: a.Pin(), Root: hex.EncodeToString(sum[:]), Fleet: "yard", Secret: strings.Repeat("n", 20)}.String()
}

func attempt(t *testing.T, token string) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "identity")
	key, err := SoftwareKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Enroll(t.Context(), dir, token, "cam-1", key)
	return dir, err
}

func TestEnrolWritesIdentity(t *testing.T) {
	dir, err := attempt(t, fakeHub(t, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{identityFile, keyFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	id, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if id.Device != "cam-1" || id.Fleet != "yard" || time.Until(id.NotAfter()) < 89*24*time.Hour {
		t.Errorf("loaded %+v", id)
	}
}

// The hub is the right one, by its key, but what it answers is not: nothing is
// kept.
func TestAnswersRefused(t *testing.T) {
	stranger, err := identity.Create(t.TempDir(), "yard", nil, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, alter := range map[string]func(r *wire.EnrollResponse){
		"other device":        func(r *wire.EnrollResponse) { r.Device = "cam-2" },
		"other fleet":         func(r *wire.EnrollResponse) { r.Fleet = "other" },
		"other root.json":     func(r *wire.EnrollResponse) { r.Root = []byte("{}") },
		"no root.json":        func(r *wire.EnrollResponse) { r.Root = nil },
		"other CA":            func(r *wire.EnrollResponse) { r.CA = [][]byte{stranger.CA()} },
		"no CA":               func(r *wire.EnrollResponse) { r.CA = nil },
		"leaf as CA":          func(r *wire.EnrollResponse) { r.CA = r.Chain[:1] },
		"no chain":            func(r *wire.EnrollResponse) { r.Chain = nil },
		"no intermediate":     func(r *wire.EnrollResponse) { r.Chain = r.Chain[:1] },
		"chain turned around": func(r *wire.EnrollResponse) { r.Chain[0], r.Chain[1] = r.Chain[1], r.Chain[0] },
		"damaged certificate": func(r *wire.EnrollResponse) { r.Chain[0] = r.Chain[0][:40] },
		"long chain": func(r *wire.EnrollResponse) {
			r.Chain = append(r.Chain, r.Chain...)
			r.Chain = append(r.Chain, r.Chain...)
		},
		"broker without port": func(r *wire.EnrollResponse) { r.Broker = "hub.example" },
		"broker without host": func(r *wire.EnrollResponse) { r.Broker = ":8883" },
		"broker's port":       func(r *wire.EnrollResponse) { r.Broker = "hub.example:99999" },
		"version":             func(r *wire.EnrollResponse) { r.V = 2 },
		"another key": func(r *wire.EnrollResponse) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Error(err)
			}
			r.Chain = issueFor(t, stranger, key)
			r.CA = [][]byte{stranger.CA()}
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			dir, err := attempt(t, fakeHub(t, alter, nil))
			if !errors.Is(err, ErrAnswer) {
				t.Errorf("%v", err)
			}
			if _, err := Load(dir); !errors.Is(err, ErrNotEnrolled) {
				t.Errorf("something was kept: %v", err)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	refused := func(status int, text string) func(error) bool {
		return func(err error) bool {
			var r *RefusedError
			return errors.As(err, &r) && r.Status == status && strings.Contains(r.Error(), text)
		}
	}
	malformed := func(err error) bool { return errors.Is(err, ErrAnswer) }
	for name, c := range map[string]struct {
		reply http.HandlerFunc
		want  func(error) bool
	}{
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for range 64 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, malformed},
		"empty": {func(http.ResponseWriter, *http.Request) {}, malformed},
		"redirect": {func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "https://other.example/", http.StatusTemporaryRedirect)
		}, refused(307, "Redirect")},
		"no reason": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, refused(502, "Bad Gateway")},
		"reason with control characters": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = w.Write(wire.Encode(wire.EnrollError{V: 1, Error: "no\x1b[2J", Hint: "ask"}))
		}, refused(403, "no [2J (ask)")},
	} {
		if _, err := attempt(t, fakeHub(t, nil, c.reply)); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHubDoesNotAnswer(t *testing.T) {
	hang := make(chan struct{})
	token := fakeHub(t, nil, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-hang:
		case <-q.Context().Done():
		}
	})
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	dir := t.TempDir()
	key, err := SoftwareKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Enroll(ctx, dir, token, "cam-1", key); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	dir, err := attempt(t, fakeHub(t, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 1, len(whole) / 2, len(whole) - 3} {
		if err := os.WriteFile(filepath.Join(dir, identityFile), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || errors.Is(err, ErrNotEnrolled) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SoftwareKey(dir); err == nil {
		t.Error("a damaged key is taken, or replaced in silence")
	}
}

func issueFor(t *testing.T, a *identity.Authority, key *ecdsa.PrivateKey) [][]byte {
	t.Helper()
	csr, err := certificateRequest("cam-1", key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.IssueDevice("cam-1", csr)
	if err != nil {
		t.Fatal(err)
	}
	return c.Chain
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, wire.Encode(wire.EnrollResponse{V: 1, Fleet: "yard", Device: "cam-1", Chain: [][]byte{{1}}, CA: [][]byte{{2}}, Broker: "h:1", Root: rootJSON}))
	f.Add(403, wire.Encode(wire.EnrollError{V: 1, Error: "no", Hint: "ask"}))
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		r, err := decodeAnswer(status, b)
		if err != nil {
			for _, c := range err.Error() {
				if c == 0x1b {
					t.Error("a control character reaches the terminal")
				}
			}
			return
		}
		id := Identity{Device: "cam-1", Fleet: "yard", Broker: r.Broker, Chain: r.Chain, CA: r.CA, RootJSON: r.Root}
		if id.check(nil) == nil {
			t.Error("an identity out of nothing")
		}
	})
}
