package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

const (
	httpsDial     = 15 * time.Second
	httpsHeader   = 15 * time.Second
	httpsIdle     = 30 * time.Second
	maxHTTPHeader = 16 << 10
)

// HTTPS reads blobs from a server by range requests. It is safe for concurrent
// use.
type HTTPS struct {
	base   string
	client *http.Client
}

// NewHTTPS makes a source of a server's address, https://host:port. The TLS
// configuration says how the server is known and brings the device's
// certificate.
func NewHTTPS(address string, t *tls.Config) (*HTTPS, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("fetch: source %q: %w", address, err)
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("fetch: source %q is no https://host:port", address)
	}
	return &HTTPS{base: "https://" + u.Host, client: &http.Client{
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: httpsDial, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig: t, TLSHandshakeTimeout: httpsDial, ResponseHeaderTimeout: httpsHeader,
			MaxResponseHeaderBytes: maxHTTPHeader, MaxConnsPerHost: 2, IdleConnTimeout: httpsIdle,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Done closes connections that the next blob may not need.
func (h *HTTPS) Done(string) { h.client.CloseIdleConnections() }

// Read implements Reader: one request for each run of chunks.
func (h *HTTPS) Read(ctx context.Context, ref wire.BlobRef, chunks []int, give func(chunk int, data []byte)) error {
	if !wire.ValidDigest(ref.Digest) {
		return fmt.Errorf("%w: no digest", ErrAbsent)
	}
	for len(chunks) > 0 {
		n := 1
		for n < len(chunks) && chunks[n] == chunks[n-1]+1 {
			n++
		}
		if err := h.run(ctx, ref, chunks[:n], give); err != nil {
			return fmt.Errorf("fetch: %s, blob %s: %w", h.base, ref.Digest, err)
		}
		chunks = chunks[n:]
	}
	return nil
}

func (h *HTTPS) run(ctx context.Context, ref wire.BlobRef, chunks []int, give func(int, []byte)) (err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base+wire.PathBlob+ref.Digest, nil)
	if err != nil {
		return err
	}
	from := int64(chunks[0]) * wire.ChunkSize
	last := chunks[len(chunks)-1]
	to := int64(last)*wire.ChunkSize + int64(ref.ChunkLen(last))
	if to == from {
		give(chunks[0], nil) // of an empty blob
		return nil
	}
	q.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	resp, err := h.client.Do(q)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch resp.StatusCode {
	case http.StatusPartialContent:
	case http.StatusNotFound:
		return ErrAbsent
	default:
		return fmt.Errorf("the server says %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	if got, want := resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", from, to-1, ref.Size); got != want {
		return fmt.Errorf("the server sends %.80q, wanted %q", got, want)
	}
	for _, i := range chunks {
		b := make([]byte, ref.ChunkLen(i))
		if _, err := io.ReadFull(resp.Body, b); err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		give(i, b)
	}
	return nil
}
