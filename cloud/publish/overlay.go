package publish

import "context"

// overlay is a Repo with metadata on top that is not appended yet, so that it
// can be composed and verified first.
type overlay struct {
	Repo
	top map[string]Metadata
}

func with(repo Repo, ms []Metadata) Repo {
	o := overlay{Repo: repo, top: map[string]Metadata{}}
	for _, m := range ms {
		o.top[m.Role] = m
	}
	return o
}

func (o overlay) Latest(ctx context.Context, role string) ([]byte, int64, error) {
	if m, ok := o.top[role]; ok {
		return m.Raw, m.Version, nil
	}
	return o.Repo.Latest(ctx, role)
}

func (o overlay) Get(ctx context.Context, role string, version int64) ([]byte, error) {
	if m, ok := o.top[role]; ok && m.Version == version {
		return m.Raw, nil
	}
	return o.Repo.Get(ctx, role, version)
}
