package publish

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/droverhq/drover/agent/wire"
)

const (
	maxDraft     = 1 << 20
	draftVersion = 1
)

// draftFile is the form of the file.
type draftFile struct {
	V         int              `json:"v"`
	Fleet     string           `json:"fleet"`
	Base      []draftFileEntry `json:"base"`
	Documents []draftFileEntry `json:"documents"`
}

type draftFileEntry struct {
	Role     string          `json:"role"`
	Metadata json.RawMessage `json:"metadata"`
}

// Encode gives the file.
func (d *Draft) Encode() ([]byte, error) {
	f := draftFile{V: draftVersion, Fleet: d.Fleet}
	for _, role := range allRoles() {
		if doc := d.base[role]; doc != nil {
			raw, err := doc.bytes()
			if err != nil {
				return nil, err
			}
			f.Base = append(f.Base, draftFileEntry{role, raw})
		}
	}
	for _, doc := range d.docs {
		raw, err := doc.bytes()
		if err != nil {
			return nil, err
		}
		f.Documents = append(f.Documents, draftFileEntry{doc.role, raw})
	}
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return nil, fail(ErrInvalid, "draft: %v", err)
	}
	return append(b, '\n'), nil
}

// DecodeDraft reads a file of at most 1 MiB. It may come from anybody: that it
// hangs together is checked here, that it is wanted only by Finish, and by the
// people who look at Changes before they sign.
func DecodeDraft(b []byte) (*Draft, error) {
	if len(b) > maxDraft {
		return nil, fail(ErrTooLarge, "draft of %d bytes, allowed are %d", len(b), maxDraft)
	}
	var f draftFile
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fail(ErrInvalid, "not a draft: %v", err)
	}
	if f.V != draftVersion || !wire.ValidName(f.Fleet) || len(f.Documents) < 1 || len(f.Documents) > 3 || len(f.Base) > 3 {
		return nil, fail(ErrInvalid, "not a draft that this program knows (version %d, %d documents)", f.V, len(f.Documents))
	}
	d := &Draft{Fleet: f.Fleet, base: map[string]*document{}}
	for _, e := range f.Base {
		doc, err := parseDocument(e.Role, e.Metadata)
		if err != nil {
			return nil, err
		}
		d.base[e.Role] = doc
	}
	order := -1
	for _, e := range f.Documents {
		doc, err := parseDocument(e.Role, e.Metadata)
		if err != nil {
			return nil, err
		}
		at, was := slices.Index(allRoles(), e.Role), d.base[e.Role]
		if at <= order || was == nil || doc.version != was.version+1 {
			return nil, fail(ErrInvalid, "%s version %d of the draft does not follow on what it builds on", doc.role, doc.version)
		}
		order = at
		d.docs = append(d.docs, doc)
	}
	if name, err := d.base[wire.RoleRoot].fleet(); err != nil || name != f.Fleet {
		return nil, fail(ErrInvalid, "the draft names fleet %q, its root another: %v", f.Fleet, err)
	}
	if err := d.checkBase(); err != nil {
		return nil, err
	}
	_, err := d.Needs()
	return d, err
}

// checkBase wants what the draft builds on to be signed, so that nothing can be
// smuggled past people as something that was there before. Whether the root is
// theirs, they have to know (BaseRoot).
func (d *Draft) checkBase() error {
	for role, doc := range d.base {
		from := d.base[namer(role)]
		if from == nil {
			return fail(ErrInvalid, "the draft builds on %s without saying who may sign that", role)
		}
		raw, err := from.bytes()
		if err != nil {
			return err
		}
		k, err := ringOf(raw, role)
		if err != nil {
			return err
		}
		if n := len(k.signedBy(doc.payload, doc.sigs)); n < k.threshold || k.threshold < 1 {
			return fail(ErrInvalid, "the draft builds on %s version %d, which has %d of %d good signatures", role, doc.version, n, k.threshold)
		}
	}
	return nil
}

// BaseRoot is the root that the draft builds on, for comparison with one that
// is known; its bytes are as the fleet has published them.
func (d *Draft) BaseRoot() (raw []byte, version int64, err error) {
	doc := d.base[wire.RoleRoot]
	if doc == nil {
		return nil, 0, fail(ErrInvalid, "the draft has no root")
	}
	raw, err = doc.bytes()
	return raw, doc.version, err
}

// fleet is the fleet's name in a root.
func (d *document) fleet() (string, error) {
	if d == nil || d.root == nil {
		return "", fail(ErrInvalid, "the draft has no root")
	}
	name, _ := d.root.Signed.UnrecognizedFields[fleetField].(string)
	return name, nil
}
