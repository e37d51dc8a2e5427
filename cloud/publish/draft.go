package publish

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// Draft is new metadata on its way to its signatures. It travels as a file
// (Encode, DecodeDraft): every holder of a key adds a signature on a machine of
// his own (Sign), copies that were signed apart are put together (Merge), and
// Finish takes the whole, or nothing, into the repo. What a Draft changes and
// who has to sign it is computed from its documents, never from words in the
// file. It is not safe for concurrent use.
type Draft struct {
	Fleet string
	base  map[string]*document // root and targets, and models where they are changed, as they were
	docs  []*document          // root before targets before models
}

// Need is one keyring that has to sign a document.
type Need struct {
	Role      string   `json:"role"`    // the document's
	Version   int64    `json:"version"` // the document's
	By        string   `json:"by"`      // "today's" or "the new" keys of the role
	Threshold int      `json:"threshold"`
	Signed    []string `json:"signed"` // key ids
	Missing   []string `json:"missing"`
}

// Met says whether enough keys have signed.
func (n Need) Met() bool { return len(n.Signed) >= n.Threshold }

// document finds a document of the draft, else what it builds on.
func (d *Draft) find(role string) *document {
	for _, doc := range d.docs {
		if doc.role == role {
			return doc
		}
	}
	return d.base[role]
}

// rings are the keyrings that have to sign a document, with their By.
func (d *Draft) rings(doc *document) (rings []keyring, by []string, err error) {
	add := func(who string, from *document) error {
		if from == nil {
			return fail(ErrInvalid, "the draft does not say who may sign %s", doc.role)
		}
		raw, err := from.bytes()
		if err != nil {
			return err
		}
		k, err := ringOf(raw, doc.role)
		rings, by = append(rings, k), append(by, who)
		return err
	}
	if doc.role == wire.RoleRoot {
		if err := add("today's", d.base[wire.RoleRoot]); err != nil {
			return nil, nil, err
		}
		return rings, by, add("the new", doc)
	}
	from := d.find(namer(doc.role))
	who := "today's"
	if from != d.base[namer(doc.role)] {
		who = "the new"
	}
	return rings, by, add(who, from)
}

// Needs are the signatures that are wanted, and those that are there.
func (d *Draft) Needs() ([]Need, error) {
	var out []Need
	for _, doc := range d.docs {
		rings, by, err := d.rings(doc)
		if err != nil {
			return nil, err
		}
		for i, k := range rings {
			n := Need{Role: doc.role, Version: doc.version, By: by[i], Threshold: k.threshold, Signed: k.signedBy(doc.payload, doc.sigs), Missing: []string{}}
			if n.Signed == nil {
				n.Signed = []string{}
			}
			for _, id := range k.ids {
				if !slices.Contains(n.Signed, id) {
					n.Missing = append(n.Missing, id)
				}
			}
			if i > 0 && slices.Equal(rings[0].ids, k.ids) && rings[0].threshold == k.threshold {
				continue // the same people
			}
			out = append(out, n)
		}
	}
	return out, nil
}

// Complete says whether nobody has to sign any more.
func (d *Draft) Complete() (bool, error) {
	needs, err := d.Needs()
	return err == nil && !slices.ContainsFunc(needs, func(n Need) bool { return !n.Met() }), err
}

// Sign has every signer sign what it may, and has not signed, and says how many
// signatures that made. A signer may be a file, a token or a remote service:
// it is asked for its public key, and only ever to sign what is wanted of it.
func (d *Draft) Sign(signers ...crypto.Signer) (added int, err error) {
	for _, doc := range d.docs {
		rings, _, err := d.rings(doc)
		if err != nil {
			return added, err
		}
		for _, s := range signers {
			id, err := KeyID(s.Public())
			if err != nil {
				return added, err
			}
			if !slices.ContainsFunc(rings, func(k keyring) bool {
				_, ok := k.keys[id]
				return ok && !slices.Contains(k.signedBy(doc.payload, doc.sigs), id)
			}) {
				continue
			}
			sig, err := s.Sign(rand.Reader, doc.payload, crypto.Hash(0))
			if err != nil {
				return added, fail(err, "sign %s with key %s", doc.role, ShortID(id))
			}
			if err := d.attach(doc, rings, id, sig); err != nil {
				return added, err
			}
			added++
		}
	}
	return added, nil
}

// Payload is what is signed of a role's document, byte for byte: for a signer
// that no crypto.Signer reaches. The signature is plain Ed25519 over it.
func (d *Draft) Payload(role string) ([]byte, error) {
	for _, doc := range d.docs {
		if doc.role == role {
			return bytes.Clone(doc.payload), nil
		}
	}
	return nil, fail(ErrInvalid, "the draft does not change %s", role)
}

// Attach adds a signature that was made elsewhere. ErrKeys if it is none, or by
// a key that has no say.
func (d *Draft) Attach(role string, pub ed25519.PublicKey, sig []byte) error {
	id, err := KeyID(pub)
	if err != nil {
		return err
	}
	for _, doc := range d.docs {
		if doc.role != role {
			continue
		}
		rings, _, err := d.rings(doc)
		if err != nil {
			return err
		}
		return d.attach(doc, rings, id, sig)
	}
	return fail(ErrInvalid, "the draft does not change %s", role)
}

func (d *Draft) attach(doc *document, rings []keyring, id string, sig []byte) error {
	for _, k := range rings {
		if pub, ok := k.keys[id]; ok {
			if !ed25519.Verify(pub, doc.payload, sig) {
				return fail(ErrKeys, "the signature of %s by key %s is wrong", doc.role, ShortID(id))
			}
			doc.sigs = slices.DeleteFunc(doc.sigs, func(s metadata.Signature) bool { return s.KeyID == id })
			doc.sigs = append(doc.sigs, metadata.Signature{KeyID: id, Signature: sig})
			return nil
		}
	}
	return fail(ErrKeys, "key %s has no say in %s", ShortID(id), doc.role)
}

// Merge adds the signatures of another copy. ErrInvalid if it is of something
// else.
func (d *Draft) Merge(other *Draft) error {
	if len(d.docs) != len(other.docs) {
		return fail(ErrInvalid, "the files are of different drafts")
	}
	for i, doc := range d.docs {
		o := other.docs[i]
		if o.role != doc.role || !bytes.Equal(o.payload, doc.payload) {
			return fail(ErrInvalid, "the files are of different drafts: %s differs", doc.role)
		}
		rings, _, err := d.rings(doc)
		if err != nil {
			return err
		}
		for _, s := range o.sigs {
			if slices.ContainsFunc(rings, func(k keyring) bool { return len(k.signedBy(doc.payload, []metadata.Signature{s})) > 0 }) {
				if err := d.attach(doc, rings, s.KeyID, s.Signature); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Finish takes a complete draft into the repo. ErrKeys while signatures are
// missing, ErrStale when something else was signed since it was made.
func (d *Draft) Finish(ctx context.Context, repo Repo, now time.Time) error {
	for role, was := range d.base {
		have, version, err := repo.Latest(ctx, role)
		if err != nil {
			return fail(err, "read %s", role)
		}
		is, err := parseDocument(role, have)
		if version == 0 || err != nil || !bytes.Equal(is.payload, was.payload) {
			return fail(ErrStale, "%s version %d, which the draft builds on, is not the newest (%d) of this fleet", role, was.version, version)
		}
	}
	needs, err := d.Needs()
	if err != nil {
		return err
	}
	for _, n := range needs {
		if !n.Met() {
			return fail(ErrKeys, "%s version %d has %d of %d signatures by %s keys; may still sign: %s", n.Role, n.Version, len(n.Signed), n.Threshold, n.By, shortIDs(n.Missing))
		}
	}
	var out []Metadata
	for _, doc := range d.docs {
		if err := d.checkDocument(doc, now); err != nil {
			return err
		}
		raw, err := doc.bytes()
		if err != nil {
			return err
		}
		out = append(out, Metadata{doc.role, doc.version, raw})
	}
	if err := repo.Append(ctx, out...); err != nil {
		return fail(err, "store %s version %d", out[0].Role, out[0].Version)
	}
	return nil
}

// checkDocument drops what no ring asked for, and has the library that devices
// use say the last word.
func (d *Draft) checkDocument(doc *document, now time.Time) error {
	raw, err := doc.bytes()
	if err != nil {
		return err
	}
	if h, err := readHead(raw); err != nil || !h.Expires.After(now) {
		return fail(ErrInvalid, "%s version %d of the draft has expired already; make the draft again", doc.role, doc.version)
	}
	rings, _, err := d.rings(doc)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, k := range rings {
		for _, id := range k.signedBy(doc.payload, doc.sigs) {
			wanted[id] = true
		}
	}
	doc.keep(wanted)
	if _, err := doc.bytes(); err != nil { // puts the signatures in
		return err
	}
	if doc.root != nil {
		for _, by := range []*document{d.base[wire.RoleRoot], doc} {
			if err := by.root.VerifyDelegate(wire.RoleRoot, doc.root); err != nil {
				return fail(ErrKeys, "root version %d by the keys of version %d: %v", doc.version, by.version, err)
			}
		}
		return nil
	}
	by := d.find(namer(doc.role))
	if by.root != nil {
		err = by.root.VerifyDelegate(doc.role, doc.targets)
	} else {
		err = by.targets.VerifyDelegate(doc.role, doc.targets)
	}
	if err != nil {
		return fail(ErrKeys, "%s version %d: %v", doc.role, doc.version, err)
	}
	return nil
}
