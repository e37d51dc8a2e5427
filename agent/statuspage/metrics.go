package statuspage

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/droverhq/drover/agent/wire"
)

// collector reads one Snapshot per scrape, so that all figures are of one
// moment and nothing is counted twice.
type collector struct{ moment func() Snapshot }

// Describe implements prometheus.Collector: the metrics are made per scrape.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.moment()
	m := metrics{out}
	m.device(s)
	for _, cam := range s.Cameras {
		m.camera(cam)
	}
	m.model(s.Model)
	m.gauge("outbox_messages", "Messages that wait to be sent.", float64(s.Outbox.Waiting))
	m.count("outbox_dropped_total", "Messages given up because the outbox was full.", float64(max(s.Outbox.Dropped, 0)))
	const chunks = "Chunks received for updates, by whether they matched their signed digest."
	m.count("fetch_chunks_total", chunks, float64(s.Fetch.Good), label{"result", "good"})
	m.count("fetch_chunks_total", chunks, float64(s.Fetch.Corrupt), label{"result", "corrupt"})
	m.count("fetch_bytes_total", "Bytes received for updates.", float64(s.Fetch.Bytes))
}

type metrics struct{ out chan<- prometheus.Metric }

type label struct{ name, value string }

func (m metrics) put(kind prometheus.ValueType, name, help string, v float64, labels []label) {
	names, values := make([]string, len(labels)), make([]string, len(labels))
	for i, l := range labels {
		names[i], values[i] = l.name, strings.ToValidUTF8(l.value, "\uFFFD")
	}
	m.out <- prometheus.MustNewConstMetric(prometheus.NewDesc("drover_"+name, help, names, nil), kind, v, values...)
}

func (m metrics) gauge(name, help string, v float64, labels ...label) {
	m.put(prometheus.GaugeValue, name, help, v, labels)
}

func (m metrics) count(name, help string, v float64, labels ...label) {
	m.put(prometheus.CounterValue, name, help, v, labels)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m metrics) device(s Snapshot) {
	m.gauge("build_info", "Always 1; the labels say what runs.", 1, label{"version", s.State.Agent}, label{"goarch", s.State.Arch})
	m.gauge("start_time_seconds", "When the daemon started, in Unix time by the device's clock.", float64(s.Started.UnixMilli())/1e3)
	m.gauge("healthy", "1 when nothing is wrong.", truth(s.State.Healthy))
	m.gauge("problems", "Things that are wrong.", float64(len(s.State.Problems)))
	m.gauge("member", "1 when the device is a member of a fleet.", truth(s.Fleet != ""))
	m.gauge("connected", "1 while there is a session with the broker.", truth(s.Connected))
	m.gauge("config_rejected", "1 when the last edit of the configuration was not taken.", truth(s.State.Config != ""))
	m.gauge("security_epoch", "Least security epoch the device accepts.", float64(s.State.Epoch))
	m.gauge("metadata_fresh", "1 while the signed metadata has not expired.", truth(s.State.Freshness == "current"))
	m.gauge("metadata_root_version", "Version of the trusted root.", float64(s.State.Root))
	u := s.State.Update
	present := u.State
	if present == "" {
		present = wire.Idle
	}
	for _, state := range []wire.UpdateState{
		wire.Idle, wire.Verify, wire.Fetch, wire.Assemble, wire.Check, wire.Probe, wire.Shadow,
		wire.Activate, wire.Probation, wire.Commit, wire.Rollback,
	} {
		m.gauge("update_state", "1 for the state the update is in, 0 for the others.", truth(state == present), label{"state", string(state)})
	}
	m.gauge("update_fetched_bytes", "Bytes of the present update that are there.", float64(u.Done))
	m.gauge("update_size_bytes", "Bytes the present update needs.", float64(u.Total))
	if u.Outcome != "" {
		m.gauge("update_last_outcome", "Always 1; the labels say how the last update ended.", 1,
			label{"outcome", string(u.Outcome)}, label{"reason", string(u.Reason)})
	}
	if u.Finished > 0 {
		m.gauge("update_last_finished_time_seconds", "When the last update ended, in Unix time by the device's clock.", float64(u.Finished)/1e3)
	}
}

func (m metrics) camera(c Camera) {
	name := label{"camera", c.Name}
	m.gauge("camera_running", "1 while the camera delivers frames.", truth(c.State == "running"), name)
	m.gauge("camera_frames_per_second", "Frames a second captured.", c.FPS, name)
	m.count("camera_frames_total", "Frames captured since the camera's child started.", float64(c.Frames), name)
	m.count("camera_restarts_total", "Restarts of the camera's child.", float64(max(c.Restarts, 0)), name)
	m.count("camera_results_total", "Frames answered.", float64(c.Results), name)
	m.count("camera_dropped_total", "Frames never classified because a newer one was there.", float64(c.Dropped), name)
	m.count("camera_stale_total", "Frames not answered because they were too old.", float64(c.Stale), name)
	m.gauge("camera_unenforced", "Parts of the cage of the camera's child that this kernel cannot hold.", float64(len(c.Unenforced)), name)
	if c.HasResult {
		m.gauge("camera_result_latency_seconds", "Capture to answer of the newest answer.", float64(c.AgeMicros)/1e6, name)
		m.gauge("camera_result_age_seconds", "Time since the newest answer.", float64(c.SinceMicros)/1e6, name)
	}
}

func (m metrics) model(s Model) {
	m.gauge("model_running", "1 while the model's child answers.", truth(s.State == "running"))
	if s.Release != "" {
		m.gauge("model_info", "Always 1; the labels say which release answers, and how.", 1,
			label{"release", s.Release}, label{"sha256", s.Digest}, label{"variant", s.Variant},
			label{"delegate", s.Delegate}, label{"fallback", strconv.FormatBool(s.Fallback != "")})
	}
	m.gauge("model_results_per_second", "Answers a second.", s.FPS)
	m.gauge("model_inference_p50_seconds", "Preprocessing and inference of one frame: median of the newest frames.", float64(s.InvokeP50)/1e6)
	m.gauge("model_inference_p99_seconds", "Preprocessing and inference of one frame: 99th percentile of the newest frames.", float64(s.InvokeP99)/1e6)
	m.count("model_results_total", "Frames the model answered.", float64(s.Results))
	m.count("model_errors_total", "Frames the runtime refused.", float64(s.Errors))
	m.count("model_restarts_total", "Restarts of the active model's child.", float64(max(s.Restarts, 0)))
	m.gauge("model_unenforced", "Parts of the cage of the model's child that this kernel cannot hold.", float64(len(s.Unenforced)))
}
