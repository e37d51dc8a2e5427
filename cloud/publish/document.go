package publish

import (
	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// document is one version of a role with the signatures it has so far.
type document struct {
	role    string
	version int64
	root    *metadata.Metadata[metadata.RootType]    // of root
	targets *metadata.Metadata[metadata.TargetsType] // of all others
	payload []byte                                   // what is signed
	sigs    []metadata.Signature
}

// parseDocument reads metadata of an offline role or of rollouts.
func parseDocument(role string, raw []byte) (*document, error) {
	d := &document{role: role}
	if len(raw) > wire.MaxMetadata(role) {
		return nil, fail(ErrTooLarge, "%s of %d bytes, allowed are %d", role, len(raw), wire.MaxMetadata(role))
	}
	var err error
	switch role {
	case wire.RoleRoot:
		d.root = new(metadata.Metadata[metadata.RootType])
		if _, err = d.root.FromBytes(raw); err == nil {
			d.version, d.sigs = d.root.Signed.Version, d.root.Signatures
		}
	case wire.RoleTargets, wire.RoleModels, wire.RoleRollouts:
		d.targets = new(metadata.Metadata[metadata.TargetsType])
		if _, err = d.targets.FromBytes(raw); err == nil {
			d.version, d.sigs = d.targets.Signed.Version, d.targets.Signatures
		}
	default:
		return nil, fail(ErrInvalid, "%q is not drafted", role)
	}
	if err != nil {
		return nil, fail(ErrInvalid, "%s: %v", role, err)
	}
	return d, d.seal()
}

// seal computes what is signed; signatures over anything else are void.
func (d *document) seal() (err error) {
	if d.root != nil {
		d.version = d.root.Signed.Version
		d.payload, err = cjson.EncodeCanonical(d.root.Signed)
	} else {
		d.version = d.targets.Signed.Version
		d.payload, err = cjson.EncodeCanonical(d.targets.Signed)
	}
	if err != nil {
		return fail(ErrInvalid, "%s: %v", d.role, err)
	}
	return nil
}

// bytes is the document as devices get it.
func (d *document) bytes() (raw []byte, err error) {
	if d.root != nil {
		d.root.Signatures = d.sigs
		raw, err = d.root.ToBytes(false)
	} else {
		d.targets.Signatures = d.sigs
		raw, err = d.targets.ToBytes(false)
	}
	if err != nil {
		return nil, fail(ErrInvalid, "%s: %v", d.role, err)
	}
	if limit := wire.MaxMetadata(d.role); len(raw) > limit {
		return nil, fail(ErrTooLarge, "%s would have %d bytes, allowed are %d; %s", d.role, len(raw), limit, remedy(d.role))
	}
	return raw, nil
}

// keep leaves only signatures by the given keys, one each.
func (d *document) keep(ids map[string]bool) {
	var kept []metadata.Signature
	seen := map[string]bool{}
	for _, s := range d.sigs {
		if ids[s.KeyID] && !seen[s.KeyID] {
			kept, seen[s.KeyID] = append(kept, s), true
		}
	}
	d.sigs = kept
}
