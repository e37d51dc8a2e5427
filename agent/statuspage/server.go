package statuspage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what a Server needs.
type Config struct {
	Addr   string // host:port; port 0 takes a free one
	Source Source
	Logger *slog.Logger
}

// Server is the page's HTTP server. Run may be called once.
type Server struct {
	cfg      Config
	listener net.Listener
	http     *http.Server
	text     language
	page     *template.Template
	exposed  string        // the address, when other machines can reach it
	previews chan struct{} // a token per preview under way
}

const (
	previewTimeout = 3 * time.Second
	previewWidth   = 640
	minWidth       = 16
	maxWidth       = 1920
	maxPreviews    = 4
	maxScrapes     = 2
	stopTimeout    = 2 * time.Second
)

// Listen takes the port; Run serves. A port that other machines can reach is
// told in the log and on the page.
func Listen(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, previews: make(chan struct{}, maxPreviews)}
	var err error
	if s.text, err = loadLanguage("en"); err != nil {
		return nil, err
	}
	if s.page, err = parsePage(s.text); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", cfg.Addr); err != nil {
		return nil, fmt.Errorf("%w (another program has the port? set status.listen to another, or to off)", err)
	}
	if a, ok := s.listener.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		s.exposed = s.listener.Addr().String()
		cfg.Logger.Warn("the status page is open to the network: everyone there can read it and see the cameras", "address", s.exposed)
	}
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// URL is where the page is.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() + "/" }

// Run serves until ctx ends, and for at most stopTimeout more.
func (s *Server) Run(ctx context.Context) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		cancel() // previews under way
		grace, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer done()
		if s.http.Shutdown(grace) != nil {
			s.http.Close()
		}
	})
	err := s.http.Serve(s.listener)
	if !stop() {
		<-stopped
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("statuspage: %w", err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s.moment})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.servePage)
	for _, a := range assets() {
		mux.HandleFunc("GET "+a.path, s.serveAsset(a.file, a.kind))
	}
	mux.HandleFunc("GET /api/status", s.serveStatus)
	mux.HandleFunc("GET /preview/{file}", s.servePreview)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
	}))
	return guard(mux)
}

// moment is the source's snapshot with figures that JSON can hold.
func (s *Server) moment() Snapshot {
	m := s.cfg.Source.Snapshot()
	m.Model.FPS, m.State.Model.FPS = finite(m.Model.FPS), finite(m.State.Model.FPS)
	for i := range m.Cameras {
		c := &m.Cameras[i]
		c.FPS = finite(c.FPS)
		for j := range c.Top {
			c.Top[j].P = float32(finite(float64(c.Top[j].P)))
		}
	}
	for i := range m.State.Cameras {
		m.State.Cameras[i].FPS = finite(m.State.Cameras[i].FPS)
	}
	return m
}

// serveStatus answers with the Snapshot, or with the page's words for the
// page's own script.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	var answer any
	if r.URL.Query().Get("as") == "page" {
		answer = s.words(r)
	} else {
		answer = s.moment()
	}
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(answer); err != nil {
		s.cfg.Logger.Error("status as JSON", "error", err)
		http.Error(w, "statuspage: the status could not be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b.Bytes())
}

// serveHealth answers 200 when the device does its work, 503 with the reasons
// when it does not.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	state := s.cfg.Source.Snapshot().State
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if state.Healthy {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	if len(state.Problems) == 0 {
		fmt.Fprintln(w, s.text.t("problem.unhealthy"))
	}
	for _, p := range state.Problems {
		fmt.Fprintln(w, p)
	}
}

func (s *Server) servePreview(w http.ResponseWriter, r *http.Request) {
	camera, ok := strings.CutSuffix(r.PathValue("file"), ".jpg")
	if !ok {
		http.NotFound(w, r)
		return
	}
	width := previewWidth
	if q := r.URL.Query().Get("width"); q != "" {
		n, err := strconv.Atoi(q)
		if err != nil || n < minWidth || n > maxWidth {
			http.Error(w, fmt.Sprintf("width: a number from %d to %d", minWidth, maxWidth), http.StatusBadRequest)
			return
		}
		width = n
	}
	select {
	case s.previews <- struct{}{}:
		defer func() { <-s.previews }()
	default:
		http.Error(w, "statuspage: too many previews at once", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), previewTimeout)
	defer cancel()
	jpeg, err := s.cfg.Source.Preview(ctx, camera, width)
	if err == nil && len(jpeg) == 0 {
		err = errors.New("statuspage: no picture yet")
	}
	if errors.Is(err, ErrNoCamera) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "image/jpeg")
	_, _ = w.Write(jpeg)
}
