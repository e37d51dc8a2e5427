// Package statuspage is the device's local window: an HTML page with live
// preview, JSON, Prometheus metrics and health, all read-only. It sees the
// device only through Source, so that nothing reached over HTTP can change
// anything.
package statuspage

import (
	"context"
	"errors"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
)

// ErrNoCamera is wrapped by Source.Preview for a camera that is not configured.
var ErrNoCamera = errors.New("statuspage: no such camera")

// Source is the device as the page sees it. Its methods may be called from any
// goroutine and return within the context's time.
type Source interface {
	// Snapshot is the present state; the caller owns it.
	Snapshot() Snapshot
	// Preview is the newest picture of a camera as JPEG. ErrNoCamera.
	Preview(ctx context.Context, camera string, width int) ([]byte, error)
}

// Snapshot is everything the page shows at one moment.
type Snapshot struct {
	Now       time.Time  `json:"now"`
	Started   time.Time  `json:"started"`
	Device    string     `json:"device"`
	Fleet     string     `json:"fleet,omitempty"` // empty: not enrolled
	Broker    string     `json:"broker,omitempty"`
	Connected bool       `json:"connected"`
	LinkError string     `json:"link_error,omitempty"`
	State     wire.State `json:"state"`
	Cameras   []Camera   `json:"cameras"`
	Model     Model      `json:"model"`
	Outbox    Outbox     `json:"outbox"`
	Fetch     Fetch      `json:"fetch"`
	History   []Entry    `json:"history"` // newest first
}

// Camera is one camera with its newest answer.
type Camera struct {
	wire.CameraState
	Source      string        `json:"source"` // without a password
	Backend     string        `json:"backend,omitempty"`
	Frames      uint64        `json:"frames"`
	Results     uint64        `json:"results"`
	Stale       uint64        `json:"stale"`
	Dropped     uint64        `json:"dropped"`
	HasResult   bool          `json:"has_result"`
	Release     string        `json:"release,omitempty"` // that gave the newest answer
	Seq         uint64        `json:"seq,omitempty"`
	AgeMicros   int64         `json:"age_us,omitempty"`   // capture to answer
	SinceMicros int64         `json:"since_us,omitempty"` // answer to now
	Top         []infer.Score `json:"top,omitempty"`
	Unenforced  []string      `json:"unenforced,omitempty"`
}

// Model is the model that answers.
type Model struct {
	wire.ModelState
	Release string   `json:"release,omitempty"`
	Digest  string   `json:"sha256,omitempty"` // of the model file
	Size    int64    `json:"size,omitempty"`
	Variant string   `json:"variant,omitempty"`
	Labels  []string `json:"labels,omitempty"`
	Results uint64   `json:"results"`
	Errors  uint64   `json:"errors"`
}

// Outbox is what waits to be sent.
type Outbox struct {
	Waiting int    `json:"waiting"`
	Dropped int64  `json:"dropped"`
	Problem string `json:"problem,omitempty"`
}

// Fetch counts chunks of updates since the start.
type Fetch struct {
	Good    uint64 `json:"good"`
	Corrupt uint64 `json:"corrupt"`
	Bytes   uint64 `json:"bytes"`
}

// Entry is one line of the device's history.
type Entry struct {
	At    time.Time  `json:"at"`
	Event wire.Event `json:"event"`
}
