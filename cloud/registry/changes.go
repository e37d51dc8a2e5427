package registry

import (
	"context"
	"fmt"
	"strings"
)

// Area is a part of the registry whose changes are counted apart, so that a
// hub that writes events all day is not woken by itself.
type Area string

// The areas.
const (
	AreaModels   Area = "models" // with aliases
	AreaReleases Area = "releases"
	AreaMetadata Area = "metadata"
	AreaRollouts Area = "rollouts"
	AreaDevices  Area = "devices" // enrolment, labels, revocation; not reports
	AreaReports  Area = "reports" // states and events of devices
	AreaTokens   Area = "tokens"
)

// ChangeCounter is a number that grows with every committed write of any
// process in the named areas (none named: in all). Equal numbers mean that
// nothing was written in between. It is cheap enough to be polled every second.
func (r *Registry) ChangeCounter(ctx context.Context, areas ...Area) (int64, error) {
	query, args := `SELECT COALESCE(SUM(n), 0) FROM changes`, []any{}
	if len(areas) > 0 {
		query += ` WHERE area IN (?` + strings.Repeat(`, ?`, len(areas)-1) + `)`
		for _, a := range areas {
			args = append(args, string(a))
		}
	}
	var n int64
	if err := r.store.reader.QueryRowContext(ctx, query, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("registry: change counter: %w", err)
	}
	return n, nil
}
