package statuspage

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector reads one Snapshot per scrape, so that all figures are of one
// moment and nothing is counted twice.
type collector struct{ source Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("drover_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector: the metrics are made per scrape.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.source.Snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	truth := map[bool]float64{true: 1}
	gauge(desc("up_seconds", "Time since the daemon started."), s.Now.Sub(s.Started).Seconds())
	gauge(desc("healthy", "1 when nothing is wrong."), truth[s.State.Healthy])
	gauge(desc("connected", "1 while there is a session with the broker."), truth[s.Connected])
	gauge(desc("security_epoch", "Least security epoch the device accepts."), float64(s.State.Epoch))
	gauge(desc("metadata_fresh", "1 while the signed metadata has not expired."), truth[s.State.Freshness == "current"])
	gauge(desc("update_state", "1 for the state the update is in.", "state"), 1, string(s.State.Update.State))
	for _, cam := range s.Cameras {
		gauge(desc("camera_running", "1 while the camera delivers frames.", "camera"), truth[cam.State == "running"], cam.Name)
		gauge(desc("camera_fps", "Frames a second captured.", "camera"), cam.FPS, cam.Name)
		count(desc("camera_restarts_total", "Restarts of the camera's child.", "camera"), float64(cam.Restarts), cam.Name)
		count(desc("results_total", "Frames answered.", "camera"), float64(cam.Results), cam.Name)
		count(desc("frames_dropped_total", "Frames never classified because a newer one was there.", "camera"), float64(cam.Dropped), cam.Name)
		count(desc("frames_stale_total", "Frames not answered because they were too old.", "camera"), float64(cam.Stale), cam.Name)
		if cam.HasResult {
			gauge(desc("result_age_seconds", "Capture to answer of the newest result.", "camera"), float64(cam.AgeMicros)/1e6, cam.Name)
		}
	}
	m := s.Model
	gauge(desc("model_running", "1 while the model's child answers.", "release"), truth[m.State == "running"], m.Release)
	gauge(desc("model_fps", "Answers a second."), m.FPS)
	gauge(desc("inference_seconds", "Preprocessing and inference of one frame, newest frames.", "quantile"), float64(m.InvokeP50)/1e6, "0.5")
	gauge(desc("inference_seconds", "Preprocessing and inference of one frame, newest frames.", "quantile"), float64(m.InvokeP99)/1e6, "0.99")
	count(desc("model_restarts_total", "Restarts of the active model's child."), float64(m.Restarts))
	count(desc("model_errors_total", "Frames the runtime refused."), float64(m.Errors))
	gauge(desc("outbox_waiting", "Messages that wait to be sent."), float64(s.Outbox.Waiting))
	count(desc("outbox_dropped_total", "Messages given up because the outbox was full."), float64(s.Outbox.Dropped))
	count(desc("fetch_chunks_total", "Chunks received for updates.", "kind"), float64(s.Fetch.Good), "good")
	count(desc("fetch_chunks_total", "Chunks received for updates.", "kind"), float64(s.Fetch.Corrupt), "corrupt")
	count(desc("fetch_bytes_total", "Bytes received for updates."), float64(s.Fetch.Bytes))
}
