package wire

// Online is retained on the device's own topic and is its last will with
// Online false. Session is the daemon's boot id at connect, so that a late
// will of an old session is not taken for news.
type Online struct {
	V       int    `json:"v"`
	Online  bool   `json:"online"`
	Session string `json:"session"`
	Agent   string `json:"agent,omitempty"` // version of droverd
}

// ReleaseRef names a release a device holds.
type ReleaseRef struct {
	Path    string `json:"path"`   // release/{model}/{version}
	Digest  string `json:"sha256"` // of the manifest
	Variant string `json:"variant,omitempty"`
}

// UpdateStatus is where the device's update stands, or how the last one ended.
type UpdateStatus struct {
	State    UpdateState `json:"state"`
	Plan     string      `json:"plan,omitempty"`
	Release  string      `json:"release,omitempty"`
	Done     int64       `json:"done,omitempty"`  // bytes, while fetching
	Total    int64       `json:"total,omitempty"` // bytes
	Outcome  Outcome     `json:"outcome,omitempty"`
	Reason   Reason      `json:"reason,omitempty"`
	Message  string      `json:"message,omitempty"`
	Finished int64       `json:"finished,omitempty"` // Unix milliseconds by the device's clock
}

// CameraState is one camera as the device sees it.
type CameraState struct {
	Name     string  `json:"name"`
	State    string  `json:"state"` // starting, running, stalled, failed
	FPS      float64 `json:"fps"`
	Width    int     `json:"width,omitempty"`
	Height   int     `json:"height,omitempty"`
	Restarts int     `json:"restarts"`
	Error    string  `json:"error,omitempty"`
}

// ModelState is the active model's child.
type ModelState struct {
	State      string   `json:"state"` // none, starting, running, failed
	Delegate   string   `json:"delegate,omitempty"`
	Fallback   string   `json:"fallback,omitempty"`
	Restarts   int      `json:"restarts"`
	FPS        float64  `json:"fps"`
	InvokeP50  int64    `json:"invoke_p50_us,omitempty"`
	InvokeP99  int64    `json:"invoke_p99_us,omitempty"`
	Unenforced []string `json:"unenforced,omitempty"` // parts of the cage this kernel cannot hold
	Error      string   `json:"error,omitempty"`
}

// State is the device's twin, retained.
type State struct {
	Header
	Agent     string            `json:"agent"`
	Arch      string            `json:"arch"`
	Labels    map[string]string `json:"labels,omitempty"`
	Active    *ReleaseRef       `json:"active,omitempty"`
	Previous  *ReleaseRef       `json:"previous,omitempty"`
	Candidate *ReleaseRef       `json:"candidate,omitempty"`
	Update    UpdateStatus      `json:"update"`
	Cameras   []CameraState     `json:"cameras"`
	Model     ModelState        `json:"model"`
	Epoch     uint64            `json:"epoch"`
	Assurance string            `json:"assurance"` // tpm, software
	Freshness string            `json:"freshness"` // current, stale
	Root      int64             `json:"root"`      // version of the trusted root
	Healthy   bool              `json:"healthy"`
	Problems  []string          `json:"problems,omitempty"`
	Config    string            `json:"config,omitempty"` // "" or why the last edit was not taken
}

// EventKind sorts events.
type EventKind string

// The kinds of event.
const (
	EventUpdate EventKind = "update" // From → To, or an Outcome
	EventSwap   EventKind = "swap"   // another release answers the frames
	EventChild  EventKind = "child"  // a child process died or came back
	EventCamera EventKind = "camera"
	EventTrust  EventKind = "trust" // metadata refused or taken
	EventConfig EventKind = "config"
	EventStart  EventKind = "start"
)

// Event is one thing that happened. Boot and Seq make it unique.
type Event struct {
	Header
	Kind    EventKind   `json:"kind"`
	Release string      `json:"release,omitempty"`
	Plan    string      `json:"plan,omitempty"`
	From    UpdateState `json:"from,omitempty"`
	To      UpdateState `json:"to,omitempty"`
	Outcome Outcome     `json:"outcome,omitempty"`
	Reason  Reason      `json:"reason,omitempty"`
	Message string      `json:"message,omitempty"`
}

// Telemetry is what one camera's results came to over a window.
type Telemetry struct {
	Header
	Camera     string   `json:"camera"`
	Release    string   `json:"release"`
	Seconds    float64  `json:"seconds"`
	Results    uint64   `json:"results"`
	Dropped    uint64   `json:"dropped"`    // frames never classified
	Stale      uint64   `json:"stale"`      // frames too old when their turn came
	Classes    []uint64 `json:"classes"`    // results per class, index = class
	Confidence []uint64 `json:"confidence"` // histogram of the top score, 20 equal bins over [0, 1]
	AgeP50     int64    `json:"age_p50_us"`
	AgeP99     int64    `json:"age_p99_us"` // capture to result
}

// Get asks for chunks of a blob: bit i of Want (least significant bit of the
// first byte first) stands for chunk First + i.
type Get struct {
	Header
	Blob  string `json:"sha256"`
	First int    `json:"first"`
	Want  []byte `json:"want"` // ≤ MaxWant bytes
	// Again: the device listened, and these chunks did not come. Without it,
	// what was sent since the device first asked counts as still on its way.
	Again bool `json:"again,omitempty"`
	// Alone: the device does not listen to the blob's shared topic (any more);
	// it wants the chunks on its own.
	Alone bool `json:"alone,omitempty"`
}

// MaxWant bounds one Get to 128 chunks, 8 MiB.
const MaxWant = 16

// Chunks lists the chunk numbers a Get asks for.
func (g *Get) Chunks() []int {
	var out []int
	for i := 0; i < len(g.Want)*8 && i < MaxWant*8; i++ {
		if g.Want[i/8]&(1<<(i%8)) != 0 {
			out = append(out, g.First+i)
		}
	}
	return out
}
