package camera

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseSource(t *testing.T) {
	for _, tt := range []struct {
		url  string
		want Source
	}{
		{"/dev/video0", Source{Kind: SourceV4L2, Path: "/dev/video0"}},
		{"/dev/v4l/by-id/usb-cam-index0", Source{Kind: SourceV4L2, Path: "/dev/v4l/by-id/usb-cam-index0"}},
		{"v4l2:///dev/video2", Source{Kind: SourceV4L2, Path: "/dev/video2"}},
		{"v4l2:///dev/video0?width=640&height=480&fps=30&format=mjpeg", Source{Kind: SourceV4L2, Path: "/dev/video0", Width: 640, Height: 480, FPS: 30, Format: "MJPG"}},
		{"V4L2:///dev/video0?format=yuyv&fps=7.5", Source{Kind: SourceV4L2, Path: "/dev/video0", FPS: 7.5, Format: "YUYV"}},
		{"file:///a/clip.avi", Source{Kind: SourceFile, Path: "/a/clip.avi"}},
		{"file:///a/my%20clip.avi?rate=12.5&loop=true", Source{Kind: SourceFile, Path: "/a/my clip.avi", Rate: 12.5, Loop: true}},
		{"file:///a/my clip.avi", Source{Kind: SourceFile, Path: "/a/my clip.avi"}},
		{"folder:///pics/?rate=20&loop=true&gray=true", Source{Kind: SourceFolder, Path: "/pics", Rate: 20, Loop: true, Gray: true}},
		{"folder:///pics?loop=false", Source{Kind: SourceFolder, Path: "/pics"}},
		{"rtsp://host/stream", Source{Kind: SourceRTSP}},
		{"rtsps://u:p@host:322/s?x=y", Source{Kind: SourceRTSP}},
		{"http://127.0.0.1:8080/video", Source{Kind: SourceHTTP}},
		{"https://[::1]/video?rate=anything", Source{Kind: SourceHTTP}},
		{"gst: videotestsrc ! appsink ", Source{Kind: SourceGst, Pipeline: "videotestsrc ! appsink"}},
	} {
		got, err := ParseSource(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Source{})); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.url, diff)
		}
		if got.URL() != tt.url {
			t.Errorf("%s: URL gives %s", tt.url, got.URL())
		}
	}
}

func TestParseSourceRefuses(t *testing.T) {
	for _, tt := range []struct{ url, say string }{
		{"", "empty"},
		{"ftp://host/x", "rtsp://"}, // names what is allowed
		{"video0", "no scheme"},
		{"/home/me/clip.avi", "file:///home/me/clip.avi"},
		{"/dev/video0?width=640", "v4l2:///dev/video0?width=640"},
		{"v4l2:///home/video0", "no device"},
		{"v4l2:///dev/../etc/passwd", "no device"},
		{"v4l2://dev/video0", "three slashes"},
		{"v4l2:///dev/video0?width=640", "go together"},
		{"v4l2:///dev/video0?width=0&height=480", "1…8192"},
		{"v4l2:///dev/video0?width=9999&height=480", "1…8192"},
		{"v4l2:///dev/video0?width=six&height=480", "1…8192"},
		{"v4l2:///dev/video0?fps=0", "0.01…1000"},
		{"v4l2:///dev/video0?fps=NaN", "0.01…1000"},
		{"v4l2:///dev/video0?fps=1e9", "0.01…1000"},
		{"v4l2:///dev/video0?format=motionjpeg", "four-letter"},
		{"v4l2:///dev/video0?rate=5", `no option "rate"; it has format, fps, height, width`},
		{"file://clip.avi", "three slashes"},
		{"file:clip.avi", "three slashes"},
		{"file:///a/clip.avi?gray=true", `no option "gray"; it has loop, rate`},
		{"file:///a/clip.avi#t=10", "three slashes"},
		{"file:///a/clip%00.avi", "zero byte"},
		{"file:///a/clip.avi?rate=1&rate=2", "2 times"},
		{"file:///a/clip.avi?rate=%zz", "options"},
		{"folder:///a?loop=yes", "true or false"},
		{"folder:///a?Loop=true", `no option "Loop"`},
		{"folder://", "three slashes"},
		{"rtsp:///stream", "without a host"},
		{"http://", "without a host"},
		{"http://host:99999/", "port"},
		{"gst:videotestsrc ! fakesink", "appsink"},
		{"rtsp://host/a\nb", "control characters"},
		{"rtsp://host/a\x00b", "control characters"},
		{"rtsp://host/\xff", "UTF-8"},
		{"rtsp://host/" + strings.Repeat("x", MaxSourceLen), "allowed 4096"},
	} {
		_, err := ParseSource(tt.url)
		if !errors.Is(err, ErrSource) {
			t.Errorf("%.60q: %v, want ErrSource", tt.url, err)
			continue
		}
		if !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%.60q: error %q does not say %q", tt.url, err, tt.say)
		}
	}
}

func TestPasswordsAreNeverPrinted(t *testing.T) {
	for _, url := range []string{
		"rtsp://admin:geheim@host/stream",
		"rtsp://admin:geheim@host:99999/stream",
		"rtsp://admin:geheim@ho st/stream",
		"rtsp://admin:geheim@[host/stream",
		"rtsp://admin:ge%zzheim@host/geheim",
		"http://host/video?user=a&pwd=geheim",
		"https://host/video#geheim",
		"rtps://admin:geheim@host/stream",
		"admin:geheim@host/stream",
		"gst:rtspsrc location=rtsp://admin:geheim@host/s ! decodebin ! appsink",
		"gst:rtspsrc location=rtsp://host/s user-id=a user-pw=geheim ! decodebin ! appsink",
		`gst:souphttpsrc location="http://host/s?token=geheim" ! appsink`,
		`gst:rtspsrc user-pw = geheim ! appsink`,
		`gst:rtspsrc user-pw="ge geheim" ! appsink`,
	} {
		src, err := ParseSource(url)
		said := src.Redacted() + src.String()
		if err != nil {
			said = err.Error()
		}
		if strings.Contains(said, "heim") {
			t.Errorf("%s is shown as %s", url, said)
		}
	}
	src, err := ParseSource("rtsp://admin:geheim@host:554/stream")
	if err != nil {
		t.Fatal(err)
	}
	gst, err := ParseSource("gst:v4l2src device=/dev/video0 io-mode=2 ! video/x-raw,format=BGR ! appsink")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := gst.Redacted(), "gst:v4l2src … ! … ! appsink"; got != want {
		t.Errorf("shown as %s, want %s", got, want)
	}
	if got, want := src.Redacted(), "rtsp://admin:xxxxx@host:554/stream"; got != want {
		t.Errorf("shown as %s, want %s", got, want)
	}
}

func TestOnlyReplaysAreNotLive(t *testing.T) {
	for url, live := range map[string]bool{"/dev/video0": true, "rtsp://h/s": true, "http://h/s": true, "gst:a ! appsink": true, "file:///a": false, "folder:///a": false} {
		src, err := ParseSource(url)
		if err != nil {
			t.Fatal(err)
		}
		if src.Live() != live {
			t.Errorf("%s: live %v", url, src.Live())
		}
	}
}

func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"/dev/video0", "v4l2:///dev/video0?width=640&height=480", "folder:///p?loop=true", "rtsp://u:p@h:1/s?x", "gst:a ! appsink", "http://[::1", "file:///%41"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := ParseSource(s)
		if err != nil {
			if !errors.Is(err, ErrSource) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if strings.ContainsRune(src.Path, 0) || strings.ContainsRune(src.Pipeline, 0) {
			t.Fatalf("%q: a zero byte came through", s)
		}
		if src.Width < 0 || src.Width > MaxSide || src.Rate < 0 || src.Rate > MaxRate {
			t.Fatalf("%q: out of range: %+v", s, src)
		}
		again, err := ParseSource(src.URL())
		if err != nil || again != src {
			t.Fatalf("%q: parsed again: %+v, %v", s, again, err)
		}
		_ = src.Redacted()
	})
}

func TestConfig(t *testing.T) {
	good := Config{Source: "/dev/video0"}
	if _, err := good.Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	want := Config{Source: "/dev/video0", OpenTimeout: DefaultOpenTimeout, StallAfter: DefaultStallAfter, StuckAfter: DefaultStuckAfter}
	if got := good.WithDefaults(); got != want {
		t.Errorf("defaults %+v", got)
	}
	for name, c := range map[string]Config{
		"no source":      {},
		"negative":       {Source: "/dev/video0", OpenTimeout: -1},
		"hours":          {Source: "/dev/video0", StuckAfter: time.Hour},
		"too eager":      {Source: "/dev/video0", StallAfter: time.Millisecond},
		"stuck at first": {Source: "/dev/video0", StallAfter: 3 * time.Second, StuckAfter: 2 * time.Second},
	} {
		if _, err := c.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFaultSaysKindAndCause(t *testing.T) {
	cause := errors.New("cable out")
	err := error(&Fault{Kind: FaultStalled, Err: cause})
	if !errors.Is(err, cause) || err.Error() != "camera: stalled: cable out" {
		t.Errorf("%v", err)
	}
	if !FaultStalled.Known() || FaultKind("shrug").Known() {
		t.Error("known kinds are mixed up")
	}
}
