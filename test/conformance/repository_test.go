package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// obj is a JSON object.
type obj = map[string]any

// signer is one key of a role.
type signer struct {
	key    crypto.Signer
	public obj
	id     string
}

// repository is a TUF repository over HTTP whose documents can be edited and
// published again, and which notes what it is asked for.
type repository struct {
	t       testing.TB
	url     string
	docs    obj                 // signed part by role
	signed  map[string][][]byte // by role, every version
	signers map[string][]*signer
	files   map[string][]byte // targets by path
	hashes  bool              // snapshot and timestamp name length and SHA-256
	// answer, if set, may answer a request instead.
	answer func(w http.ResponseWriter, path string) bool

	mu    sync.Mutex
	asked []string // "root 2", "timestamp", of metadata
	gets  []string // of targets
}

func newRepository(t testing.TB) *repository {
	r := &repository{t: t, docs: obj{}, signed: map[string][][]byte{}, signers: map[string][]*signer{}, files: map[string][]byte{}}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	r.url = srv.URL
	r.docs["root"] = r.doc("root", obj{"consistent_snapshot": true, "keys": obj{}, "roles": obj{}})
	r.docs["targets"] = r.doc("targets", obj{"targets": obj{}})
	r.docs["snapshot"] = r.doc("snapshot", obj{"meta": obj{}})
	r.docs["timestamp"] = r.doc("timestamp", obj{"meta": obj{}})
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		r.get("root")["roles"].(obj)[role] = obj{"keyids": []any{}, "threshold": 1}
		r.addKey("root", role, r.newSigner("ecdsa"))
	}
	r.publish("targets", "snapshot", "timestamp", "root")
	return r
}

func (r *repository) doc(kind string, more obj) obj {
	d := obj{"_type": kind, "spec_version": "1.0.31", "version": 1}
	for k, v := range more {
		d[k] = v
	}
	return expire(d, time.Now().Add(30*24*time.Hour))
}

func expire(d obj, at time.Time) obj {
	d["expires"] = at.UTC().Format(time.RFC3339)
	return d
}

func (r *repository) get(role string) obj { return r.docs[role].(obj) }

func (r *repository) newSigner(kind string) *signer {
	r.t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	r.must(err)
	k, err := metadata.KeyFromPublicKey(key.Public())
	r.must(err)
	b, err := json.Marshal(k)
	r.must(err)
	s := &signer{key: key}
	r.must(json.Unmarshal(b, &s.public))
	return s.named(r.t)
}

// named computes the key's id anew, after its public part was edited.
func (s *signer) named(t testing.TB) *signer {
	b, err := cjson.EncodeCanonical(s.public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	s.id = hex.EncodeToString(sum[:])
	return s
}

func (s *signer) sign(payload []byte) (string, error) {
	sum := sha256.Sum256(payload)
	var sig []byte
	var err error
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	case ed25519.PrivateKey:
		sig = ed25519.Sign(key, payload)
	default:
		sig, err = s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	return hex.EncodeToString(sig), err
}

func (r *repository) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// roleOf is the entry of a role in its delegator, with the keys beside it.
func (r *repository) roleOf(delegator, role string) (entry, keys obj) {
	d := r.get(delegator)
	if delegator == "root" {
		return d["roles"].(obj)[role].(obj), d["keys"].(obj)
	}
	del := d["delegations"].(obj)
	for _, e := range del["roles"].([]any) {
		if e.(obj)["name"] == role {
			return e.(obj), del["keys"].(obj)
		}
	}
	r.t.Fatalf("%s does not delegate to %s", delegator, role)
	return nil, nil
}

// addKey gives a role a key and signs with it from now on.
func (r *repository) addKey(delegator, role string, s *signer) {
	entry, keys := r.roleOf(delegator, role)
	entry["keyids"] = append(entry["keyids"].([]any), s.id)
	keys[s.id] = s.public
	r.signers[role] = append(r.signers[role], s)
}

// keysOf gives a role exactly these keys, and signs with others.
func (r *repository) keysOf(role string, threshold int, keys, with []*signer) {
	entry, _ := r.roleOf("root", role)
	entry["keyids"], entry["threshold"] = []any{}, threshold
	for _, s := range keys {
		r.addKey("root", role, s)
	}
	r.signers[role] = with
}

// rotate takes a role's keys away and gives it a new one.
func (r *repository) rotate(role string) {
	s := r.newSigner("ecdsa")
	r.keysOf(role, 1, []*signer{s}, []*signer{s})
}

// delegate adds a role as the last one that another delegates to.
func (r *repository) delegate(delegator, role string, terminating bool, paths ...string) {
	d := r.get(delegator)
	if d["delegations"] == nil {
		d["delegations"] = obj{"keys": obj{}, "roles": []any{}}
	}
	list := make([]any, len(paths))
	for i, p := range paths {
		list[i] = p
	}
	del := d["delegations"].(obj)
	del["roles"] = append(del["roles"].([]any), obj{"name": role, "keyids": []any{}, "threshold": 1, "terminating": terminating, "paths": list})
	if r.docs[role] == nil {
		r.docs[role] = r.doc("targets", obj{"targets": obj{}})
	}
	r.addKey(delegator, role, r.newSigner("ecdsa"))
}

// addTarget puts a file into a role, with these hashes.
func (r *repository) addTarget(role, path, content string, hashes ...string) {
	sums := obj{}
	for _, h := range append([]string{}, hashes...) {
		switch h {
		case "sha256":
			s := sha256.Sum256([]byte(content))
			sums[h] = hex.EncodeToString(s[:])
		default:
			s := sha512.Sum512([]byte(content))
			sums[h] = hex.EncodeToString(s[:])
		}
	}
	if len(hashes) == 0 {
		s := sha256.Sum256([]byte(content))
		sums["sha256"] = hex.EncodeToString(s[:])
	}
	r.get(role)["targets"].(obj)[path] = obj{"length": len(content), "hashes": sums}
	r.files[path] = []byte(content)
}

// publish signs roles anew, one version higher each, and lists them above.
func (r *repository) publish(roles ...string) {
	r.t.Helper()
	for _, role := range roles {
		d := r.get(role)
		if len(r.signed[role]) > 0 {
			d["version"] = d["version"].(int) + 1
		}
		raw := r.sign(role)
		r.signed[role] = append(r.signed[role], raw)
		listed := obj{"version": d["version"]}
		if r.hashes {
			sum := sha256.Sum256(raw)
			listed["length"], listed["hashes"] = len(raw), obj{"sha256": hex.EncodeToString(sum[:])}
		}
		switch role {
		case "root", "timestamp":
		case "snapshot":
			r.get("timestamp")["meta"].(obj)["snapshot.json"] = listed
		default:
			r.get("snapshot")["meta"].(obj)[role+".json"] = listed
		}
	}
}

func (r *repository) sign(role string) []byte {
	r.t.Helper()
	payload, err := cjson.EncodeCanonical(r.docs[role])
	r.must(err)
	sigs := []any{}
	for _, s := range r.signers[role] {
		sig, err := s.sign(payload)
		r.must(err)
		sigs = append(sigs, obj{"keyid": s.id, "sig": sig})
	}
	raw, err := json.Marshal(obj{"signed": r.docs[role], "signatures": sigs})
	r.must(err)
	return raw
}

// again begins a role's versions anew, as somebody does who rolls back.
func (r *repository) again(role string, version int) {
	r.get(role)["version"] = version
	delete(r.signed, role)
}

// editSignatures changes the signatures of what was published last.
func (r *repository) editSignatures(role string, edit func([]any) []any) {
	all := r.signed[role]
	var doc obj
	r.must(json.Unmarshal(all[len(all)-1], &doc))
	doc["signatures"] = edit(doc["signatures"].([]any))
	raw, err := json.Marshal(doc)
	r.must(err)
	all[len(all)-1] = raw
}

// latest is what was published last of a role.
func (r *repository) latest(role string) []byte {
	all := r.signed[role]
	return all[len(all)-1]
}

// ServeHTTP implements http.Handler.
func (r *repository) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := req.URL.EscapedPath()
	if r.answer != nil && r.answer(w, p) {
		return
	}
	b, ok := r.find(p)
	if !ok {
		http.NotFound(w, req)
		return
	}
	_, _ = w.Write(b)
}

func (r *repository) find(p string) ([]byte, bool) {
	if name, ok := strings.CutPrefix(p, "/metadata/"); ok {
		name = strings.TrimSuffix(name, ".json")
		if name == "timestamp" {
			r.asked = append(r.asked, name)
			return last(r.signed[name])
		}
		number, role, _ := strings.Cut(name, ".")
		r.asked = append(r.asked, role+" "+number)
		v, err := strconv.Atoi(number)
		role, err2 := url.PathUnescape(role)
		if all := r.signed[role]; err == nil && err2 == nil && v >= 1 && v <= len(all) {
			return all[v-1], true
		}
		return nil, false
	}
	name := strings.TrimPrefix(p, "/targets/")
	r.gets = append(r.gets, name)
	for path, b := range r.files {
		dir, base := "", path
		if i := strings.LastIndex(path, "/"); i >= 0 {
			dir, base = path[:i+1], path[i+1:]
		}
		for role := range r.docs {
			t, _ := r.get(role)["targets"].(obj)
			f, _ := t[path].(obj)
			if f == nil {
				continue
			}
			for _, h := range f["hashes"].(obj) {
				if name == fmt.Sprintf("%s%s.%s", dir, h, base) {
					return b, true
				}
			}
		}
	}
	return nil, false
}

func last(all [][]byte) ([]byte, bool) {
	if len(all) == 0 {
		return nil, false
	}
	return bytes.Clone(all[len(all)-1]), true
}
