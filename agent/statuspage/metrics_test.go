package statuspage

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/droverhq/drover/agent/wire"
)

// everyMetric is the whole scrape of a device on which everything happens.
const everyMetric = `
drover_build_info{goarch="arm64",version="0.1.0"} 1
drover_start_time_seconds 1.773216e+09
drover_healthy 0
drover_problems 1
drover_member 1
drover_connected 1
drover_config_rejected 1
drover_security_epoch 3
drover_metadata_fresh 1
drover_metadata_root_version 2
drover_update_state{state="activate"} 0
drover_update_state{state="assemble"} 0
drover_update_state{state="check"} 0
drover_update_state{state="commit"} 0
drover_update_state{state="fetch"} 1
drover_update_state{state="idle"} 0
drover_update_state{state="probation"} 0
drover_update_state{state="probe"} 0
drover_update_state{state="rollback"} 0
drover_update_state{state="shadow"} 0
drover_update_state{state="verify"} 0
drover_update_fetched_bytes 65536
drover_update_size_bytes 131072
drover_update_last_outcome{outcome="refused",reason="golden"} 1
drover_update_last_finished_time_seconds 1.5
drover_camera_running{camera="door"} 1
drover_camera_frames_per_second{camera="door"} 14.93
drover_camera_frames_total{camera="door"} 4.104213e+06
drover_camera_restarts_total{camera="door"} 2
drover_camera_results_total{camera="door"} 4.090877e+06
drover_camera_dropped_total{camera="door"} 13333
drover_camera_stale_total{camera="door"} 3
drover_camera_unenforced{camera="door"} 1
drover_camera_result_latency_seconds{camera="door"} 0.0482
drover_camera_result_age_seconds{camera="door"} 0.061
drover_model_running 1
drover_model_info{delegate="xnnpack",fallback="true",release="release/gate/7",sha256="ab",variant="cpu"} 1
drover_model_results_per_second 14.9
drover_model_inference_p50_seconds 0.00651
drover_model_inference_p99_seconds 0.00984
drover_model_results_total 4.090877e+06
drover_model_errors_total 5
drover_model_restarts_total 1
drover_model_unenforced 2
drover_outbox_messages 7
drover_outbox_dropped_total 4
drover_fetch_chunks_total{result="good"} 56
drover_fetch_chunks_total{result="corrupt"} 1
drover_fetch_bytes_total 3.664512e+06
`

func busy() Snapshot {
	s := healthy()
	s.State.Healthy, s.State.Problems, s.State.Config = false, []string{"x"}, "bad edit"
	s.State.Update = wire.UpdateStatus{State: wire.Fetch, Done: 65536, Total: 131072, Outcome: wire.Refused, Reason: wire.ReasonGolden, Finished: 1500}
	s.Cameras[0].Restarts, s.Cameras[0].Unenforced = 2, []string{"network"}
	s.Model.Digest, s.Model.Fallback, s.Model.Errors, s.Model.Restarts = "ab", "no TPU", 5, 1
	s.Model.Unenforced = []string{"a", "b"}
	s.Outbox, s.Fetch.Corrupt = Outbox{Waiting: 7, Dropped: 4}, 1
	return s
}

func TestEveryMetric(t *testing.T) {
	body := get(t, &fake{snapshot: busy()}, "/metrics").Body.String()
	got := map[string]bool{}
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			got[line] = true
		}
	}
	for line := range strings.Lines(strings.TrimSpace(everyMetric)) {
		line = strings.TrimSpace(line)
		if !got[line] {
			t.Errorf("missing: %s", line)
		}
		delete(got, line)
	}
	for line := range got {
		t.Errorf("not in the list: %s", line)
	}
}

func TestMetricNamesFollowTheConventions(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{busy})
	families, err := registry.Gather()
	if err != nil || len(families) < 30 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	found, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
	// The linter itself finds what it should.
	bad, err := promlint.New(strings.NewReader("# TYPE drover_x_ms counter\ndrover_x_ms 1\n")).Lint()
	if err != nil || len(bad) == 0 {
		t.Errorf("the linter finds nothing: %v", err)
	}
}

func TestHostileLabelsDoNotBreakAScrape(t *testing.T) {
	s := busy()
	s.Cameras[0].Name = "a\"b\n\xff{}"
	s.Model.Release = "x\x00\xfe"
	s.Cameras = append(s.Cameras, s.Cameras[0]) // twice the same name
	w := get(t, &fake{snapshot: s}, "/metrics")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "drover_healthy 0") {
		t.Errorf("status %d:\n%s", w.Code, w.Body)
	}
}

func TestEmptyDeviceIsScraped(t *testing.T) {
	w := get(t, &fake{}, "/metrics")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `drover_update_state{state="idle"} 1`) || strings.Contains(w.Body.String(), "camera") {
		t.Errorf("status %d:\n%s", w.Code, w.Body)
	}
}
