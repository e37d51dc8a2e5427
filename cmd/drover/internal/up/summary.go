package up

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/droverhq/drover/cloud/registry"
)

// Summary is the last line of a demo. The names are stable.
type Summary struct {
	Frames     uint64   `json:"frames"`  // answered by the device
	Updates    int      `json:"updates"` // committed over the air
	Refused    []string `json:"refused"` // reasons
	AccuracyV1 float64  `json:"accuracy_v1"`
	AccuracyV2 float64  `json:"accuracy_v2"`
	StatusURL  string   `json:"status_url"`

	Release         string  `json:"release"` // answering at the end
	Delegate        string  `json:"delegate"`
	InvokeP50Micros int64   `json:"invoke_p50_us"`
	ModelRestarts   int     `json:"model_restarts"`
	CameraRestarts  int     `json:"camera_restarts"`
	StatusAsked     int64   `json:"status_asked"`  // times the status page was asked during the story
	StatusMissed    int64   `json:"status_missed"` // and did not answer
	Seconds         float64 `json:"seconds"`
}

// finish checks that all is as it should be and sums it up.
func (s *story) finish(ctx context.Context, good registry.Release) (*Summary, error) {
	if err := s.answers(ctx, good); err != nil {
		return nil, err
	}
	snap, err := s.device.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	sum := &s.sum
	for _, c := range snap.Cameras {
		sum.Frames += c.Results
		sum.CameraRestarts += c.Restarts
	}
	sum.StatusURL, sum.Release, sum.Delegate = s.device.url(), snap.Model.Release, snap.Model.Delegate
	sum.InvokeP50Micros, sum.ModelRestarts = snap.Model.InvokeP50, snap.Model.Restarts
	sum.StatusAsked, sum.StatusMissed = s.device.asked.Load(), s.device.missed.Load()
	sum.Seconds = time.Since(s.began).Seconds()
	s.ui.say("  device       %d frames answered, %d updates, %d refusals; %s goes on", sum.Frames, sum.Updates, len(sum.Refused), sum.Release)
	switch {
	case !snap.State.Healthy:
		return nil, fmt.Errorf("up: at the end the device is not healthy: %v", snap.State.Problems)
	case snap.State.Active == nil || snap.State.Active.Path != good.Path:
		return nil, fmt.Errorf("up: at the end the active release is %v, expected %s", snap.State.Active, good.Path)
	case sum.StatusMissed > 0:
		return nil, fmt.Errorf("up: the status page was away %d of %d times", sum.StatusMissed, sum.StatusAsked)
	case sum.Updates != 2 || len(sum.Refused) != 2 || sum.Frames == 0:
		return nil, fmt.Errorf("up: %d updates, %d refusals, %d frames", sum.Updates, len(sum.Refused), sum.Frames)
	}
	return sum, nil
}

// print writes the summary as one line.
func (s *Summary) print(out io.Writer) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", b)
	return err
}
