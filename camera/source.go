package camera

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// SourceKind is what kind of thing delivers the frames.
type SourceKind string

// The kinds of source.
const (
	SourceV4L2   SourceKind = "v4l2"   // a local video device
	SourceFile   SourceKind = "file"   // a video file, replayed
	SourceFolder SourceKind = "folder" // all pictures below a folder, replayed
	SourceRTSP   SourceKind = "rtsp"
	SourceHTTP   SourceKind = "http" // MJPEG over HTTP or HTTPS
	SourceGst    SourceKind = "gst"  // a GStreamer pipeline
)

// Limits of a source.
const (
	MaxSourceLen = 4096 // bytes of the URL
	MaxRate      = 1000 // frames a second
	DefaultRate  = 25   // frames a second, of a folder or of a file that does not say
)

// ErrSource is wrapped by every error of ParseSource.
var ErrSource = errors.New("camera: bad source")

// Source says where frames come from. It is made by ParseSource and is
// immutable.
type Source struct {
	Kind     SourceKind
	Path     string  // v4l2, file, folder: absolute path
	Pipeline string  // gst: as for gst-launch, ending in an appsink
	Width    int     // v4l2: pixels asked of the device; 0: its choice
	Height   int     // v4l2: as Width
	FPS      float64 // v4l2: frames a second asked of the device; 0: its choice
	Format   string  // v4l2: upper-case FOURCC asked of the device; "": its choice
	Rate     float64 // file, folder: frames a second of the replay; 0: as the file says
	Loop     bool    // file, folder: begin again after the last frame
	Gray     bool    // folder: gray pictures become Gray8 frames instead of BGR8

	raw string
}

const schemes = "v4l2:///dev/video0, file:///clip.avi, folder:///dir, rtsp://…, http(s)://… or gst:…"

// ParseSource reads one source URL:
//
//	v4l2:///dev/video0?width=640&height=480&fps=30&format=mjpeg, or just /dev/video0
//	file:///path/clip.avi?rate=25&loop=true
//	folder:///dir?rate=20&loop=true&gray=true
//	rtsp://user:password@host/path, rtsps://…
//	http://host/path, https://…               (MJPEG; the query goes to the server)
//	gst:v4l2src ! videoconvert ! video/x-raw,format=BGR ! appsink
//
// It touches nothing: whether the source exists shows when it is opened. Errors
// wrap ErrSource and never contain a password.
func ParseSource(s string) (Source, error) {
	switch {
	case s == "":
		return Source{}, fmt.Errorf("%w: empty; use %s", ErrSource, schemes)
	case len(s) > MaxSourceLen:
		return Source{}, fmt.Errorf("%w: %d bytes, allowed %d", ErrSource, len(s), MaxSourceLen)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
		return Source{}, fmt.Errorf("%w: it contains control characters or is not UTF-8", ErrSource)
	}
	if strings.HasPrefix(s, "/") {
		return parsePlainPath(s)
	}
	scheme, rest, found := strings.Cut(s, ":")
	if !found {
		return Source{}, fmt.Errorf("%w: no scheme; use %s", ErrSource, schemes)
	}
	switch strings.ToLower(scheme) {
	case "gst":
		return parsePipeline(s, rest)
	case "v4l2", "file", "folder":
		return parseLocal(s)
	case "rtsp", "rtsps":
		return parseRemote(s, SourceRTSP)
	case "http", "https":
		return parseRemote(s, SourceHTTP)
	}
	// A missing scheme may make "user" of user:password@host look like one.
	return Source{}, fmt.Errorf("%w: unknown scheme; use %s", ErrSource, schemes)
}

func parsePlainPath(s string) (Source, error) {
	if !strings.HasPrefix(s, "/dev/") {
		return Source{}, fmt.Errorf("%w: only a device may be a plain path; use file://%s or folder://%s", ErrSource, s, s)
	}
	if strings.ContainsAny(s, "?#%") {
		return Source{}, fmt.Errorf("%w: options need the long form v4l2://%s", ErrSource, s)
	}
	return Source{Kind: SourceV4L2, Path: filepath.Clean(s), raw: s}, nil
}

func parsePipeline(s, pipeline string) (Source, error) {
	pipeline = strings.TrimSpace(pipeline)
	if !strings.Contains(pipeline, "appsink") {
		return Source{}, fmt.Errorf("%w: a gst: pipeline must end in an appsink", ErrSource)
	}
	return Source{Kind: SourceGst, Pipeline: pipeline, raw: s}, nil
}

func parseRemote(s string, kind SourceKind) (Source, error) {
	u, err := url.Parse(s)
	if err != nil {
		// The error of net/url quotes the URL, password included.
		return Source{}, fmt.Errorf("%w: malformed %s URL", ErrSource, kind)
	}
	if u.Hostname() == "" {
		return Source{}, fmt.Errorf("%w: %s URL without a host", ErrSource, kind)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return Source{}, fmt.Errorf("%w: %s URL with port %q", ErrSource, kind, p)
		}
	}
	return Source{Kind: kind, raw: s}, nil
}

func parseLocal(s string) (Source, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Source{}, fmt.Errorf("%w: %v", ErrSource, err)
	}
	src := Source{Kind: SourceKind(u.Scheme), raw: s}
	if u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || u.Fragment != "" {
		return Source{}, fmt.Errorf("%w: %s needs an absolute path after three slashes, as in %s:///path", ErrSource, src.Kind, src.Kind)
	}
	if strings.ContainsRune(u.Path, 0) {
		return Source{}, fmt.Errorf("%w: the path contains a zero byte", ErrSource)
	}
	src.Path = filepath.Clean(u.Path)
	if src.Kind == SourceV4L2 && !strings.HasPrefix(src.Path, "/dev/") {
		return Source{}, fmt.Errorf("%w: %s is no device below /dev", ErrSource, src.Path)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Source{}, fmt.Errorf("%w: options: %v", ErrSource, err)
	}
	for key, values := range query {
		if len(values) != 1 {
			return Source{}, fmt.Errorf("%w: option %q is given %d times", ErrSource, key, len(values))
		}
		if err := src.setOption(key, values[0]); err != nil {
			return Source{}, err
		}
	}
	if (src.Width == 0) != (src.Height == 0) {
		return Source{}, fmt.Errorf("%w: width and height go together", ErrSource)
	}
	return src, nil
}

// Redacted is the URL as given, but with x's for a password, without the query
// of a remote URL, where tokens stand, and without the properties in a pipeline:
// the form for logs and messages.
func (s Source) Redacted() string {
	switch s.Kind {
	case SourceGst:
		return "gst:" + redactPipeline(s.Pipeline)
	case SourceRTSP, SourceHTTP:
	default:
		return s.raw
	}
	u, err := url.Parse(s.raw)
	if err != nil {
		return string(s.Kind) + "://?"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	u.Fragment, u.RawFragment = "", ""
	return u.Redacted()
}

// String is Redacted, so that no format verb prints a password.
func (s Source) String() string { return s.Redacted() }

// URL is the source as given, passwords included: for opening it and for
// handing it to the camera child, not for logs.
func (s Source) URL() string { return s.raw }

// Live says that the source sets its own pace and has no end: a frame that is
// not taken is lost. Otherwise it is a replay at Rate.
func (s Source) Live() bool { return s.Kind != SourceFile && s.Kind != SourceFolder }

// redactPipeline keeps the names of the elements. Any property may be a
// password, and a quoted one may look like an element.
func redactPipeline(p string) string {
	if strings.ContainsAny(p, "\"'\\") {
		return "…"
	}
	var shown []string
	first := true
	for _, word := range strings.Fields(p) {
		switch {
		case word == "!":
			shown = append(shown, word)
			first = true
			continue
		case first && !strings.ContainsAny(word, "=:@?"):
			shown = append(shown, word)
		case len(shown) == 0 || shown[len(shown)-1] != "…":
			shown = append(shown, "…")
		}
		first = false
	}
	return strings.Join(shown, " ")
}
