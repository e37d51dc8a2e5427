package publish

import (
	"context"
	"encoding/json"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// head is what all roles have in common.
type head struct {
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

func readHead(raw []byte) (head, error) {
	var doc struct {
		Signed head `json:"signed"`
	}
	err := json.Unmarshal(raw, &doc)
	return doc.Signed, err
}

// Renewal says when a role has to be signed again.
type Renewal struct {
	Role    string
	Expires time.Time
	Due     time.Time // half its life before Expires, at most 30 days
	Online  bool      // the hub can do it alone
}

// margin is how long before its expiry a role is renewed.
func margin(role string) time.Duration { return min(Life(role)/2, 30*24*time.Hour) }

func due(role string, expires, now time.Time) bool {
	return !now.Before(expires.Add(-margin(role)))
}

// Due lists all roles by when they have to be signed again, and whether that
// is now. A hub renews the online roles (SetPlans with the same plans,
// Publish) and tells its operator of the others.
func Due(ctx context.Context, repo Repo, now time.Time) (pending, later []Renewal, err error) {
	for _, role := range allRoles() {
		raw, version, err := repo.Latest(ctx, role)
		if err != nil {
			return nil, nil, fail(err, "read %s", role)
		}
		if version == 0 {
			return nil, nil, fail(ErrNoFleet, "there is no %s; make a fleet with drover init", role)
		}
		h, err := readHead(raw)
		if err != nil {
			return nil, nil, fail(ErrInvalid, "%s version %d in the repository: %v", role, version, err)
		}
		r := Renewal{Role: role, Expires: h.Expires, Due: h.Expires.Add(-margin(role)), Online: Online(role)}
		if due(role, h.Expires, now) {
			pending = append(pending, r)
		} else {
			later = append(later, r)
		}
	}
	return pending, later, nil
}

// Renew signs again what the hub can sign alone and is due, and publishes if
// anything was. It gives nil when nothing was due.
func Renew(ctx context.Context, repo Repo, keys Keys, now time.Time) (*Publication, error) {
	pending, _, err := Due(ctx, repo, now)
	if err != nil {
		return nil, err
	}
	publish := false
	for _, r := range pending {
		if r.Role == wire.RoleRollouts {
			if err := Resign(ctx, repo, r.Role, keys[r.Role], now); err != nil {
				return nil, err
			}
		}
		publish = publish || r.Online
	}
	if !publish {
		return nil, nil
	}
	return Publish(ctx, repo, keys[metadata.SNAPSHOT], keys[metadata.TIMESTAMP], now)
}
