package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// patience is how long one file may take. It ends a repository that trickles.
const patience = 30 * time.Second

// errAbsent says that the repository does not have a file.
var errAbsent = errors.New("not there")

// remote is the address of a folder, with or without its last slash.
type remote string

// get fetches a file of at most limit bytes. name is quoted already.
func (r remote) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(string(r), "/")+"/"+name, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden: // what a bucket says of a file it does not list
		return nil, fmt.Errorf("get %s: %s: %w", name, res.Status, errAbsent)
	default:
		return nil, fmt.Errorf("get %s: %s", name, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("get %s: more than the allowed %d bytes", name, limit)
	}
	return b, nil
}
