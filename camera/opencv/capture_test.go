//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"image/jpeg"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/camera"
)

func TestFolderIsReplayedInOrder(t *testing.T) {
	dir := t.TempDir()
	picture(t, filepath.Join(dir, "a/2.png"), 32, 24, 20, 20, 20)
	picture(t, filepath.Join(dir, "a/1.png"), 32, 24, 10, 10, 10)
	picture(t, filepath.Join(dir, "b/0.bmp"), 16, 16, 30, 31, 32)
	picture(t, filepath.Join(dir, "c/x.JPG"), 16, 16, 200, 200, 200)
	os.WriteFile(filepath.Join(dir, "labels.txt"), []byte("no picture"), 0o644)

	c := open(t, source(t, "folder://%s", dir))
	var f camera.Frame
	want := []struct{ side, blue int }{{32, 10}, {32, 20}, {16, 30}, {16, 200}}
	for i, w := range want {
		if err := c.Read(&f); err != nil {
			t.Fatal(err)
		}
		if f.Width != w.side || f.Format != camera.BGR8 || abs(int(f.Data[0])-w.blue) > 2 {
			t.Errorf("frame %d: %d×%d %v, first byte %d, want %d wide and %d", i, f.Width, f.Height, f.Format, f.Data[0], w.side, w.blue)
		}
	}
	wantFault(t, c.Read(&f), camera.FaultEnd)
	if info := c.Info(); info.Backend != "folder" || info.FPS != 0 {
		t.Errorf("info %+v", info)
	}
}

func TestFolderLoopsAndSkipsWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	picture(t, filepath.Join(dir, "1.png"), 8, 8, 10, 10, 10)
	os.WriteFile(filepath.Join(dir, "2.png"), []byte("not a picture at all"), 0o644)
	os.WriteFile(filepath.Join(dir, "3.png"), nil, 0o644)
	if err := syscall.Mkfifo(filepath.Join(dir, "4.png"), 0o644); err != nil {
		t.Fatal(err)
	}
	picture(t, filepath.Join(dir, "5.png"), 8, 8, 50, 50, 50)

	c := open(t, source(t, "folder://%s?loop=true", dir))
	var f camera.Frame
	for i := range 5 {
		if err := c.Read(&f); err != nil {
			t.Fatal(err)
		}
		if want := []byte{10, 50}[i%2]; f.Data[0] != want {
			t.Errorf("frame %d: first byte %d, want %d", i, f.Data[0], want)
		}
	}
	// Two whole rounds have passed the three bad ones each.
	if n, err := c.Skipped(); n != 6 || err == nil || !strings.Contains(err.Error(), "4.png") {
		t.Errorf("skipped %d, %v; want 6 and the last one's name", n, err)
	}
}

func TestGrayPictures(t *testing.T) {
	dir := t.TempDir()
	grayPicture(t, filepath.Join(dir, "1.png"), 77)
	picture(t, filepath.Join(dir, "2.png"), 8, 8, 1, 2, 3)
	for _, tt := range []struct {
		query  string
		format camera.PixelFormat
		bytes  int
	}{{"", camera.BGR8, 28 * 28 * 3}, {"?gray=true", camera.Gray8, 28 * 28}} {
		c := open(t, source(t, "folder://%s%s", dir, tt.query))
		var f camera.Frame
		if err := c.Read(&f); err != nil {
			t.Fatal(err)
		}
		if f.Format != tt.format || len(f.Data) != tt.bytes || f.Data[0] != 77 {
			t.Errorf("%q: gray picture is %v of %d bytes, first %d", tt.query, f.Format, len(f.Data), f.Data[0])
		}
		if err := c.Read(&f); err != nil || f.Format != camera.BGR8 {
			t.Errorf("%q: colour picture is %v, %v", tt.query, f.Format, err)
		}
	}
}

func TestFileEndsOrLoops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "100%d clip.avi") // a name that OpenCV could take for a pattern
	clip(t, path, 6)
	name := strings.NewReplacer("%", "%25", " ", "%20").Replace(path)

	once := open(t, source(t, "file://%s", name))
	var f camera.Frame
	for i := range 6 {
		if err := once.Read(&f); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if f.Width != 64 || f.Height != 48 || abs(int(f.Data[0])-(10+20*i)) > 3 {
			t.Errorf("frame %d: %d×%d, first byte %d", i, f.Width, f.Height, f.Data[0])
		}
	}
	wantFault(t, once.Read(&f), camera.FaultEnd)
	if info := once.Info(); info.FPS != 12 || info.Backend == "" {
		t.Errorf("info %+v, want 12 frames a second", info)
	}

	looped := open(t, source(t, "file://%s?loop=true", name))
	for i := range 15 {
		if err := looped.Read(&f); err != nil {
			t.Fatalf("looped frame %d: %v", i, err)
		}
		if abs(int(f.Data[0])-(10+20*(i%6))) > 3 {
			t.Errorf("looped frame %d: first byte %d", i, f.Data[0])
		}
	}
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.avi")
	os.WriteFile(junk, bytes.Repeat([]byte("junk"), 1000), 0o644)
	onlyJunk := filepath.Join(dir, "onlyjunk")
	os.Mkdir(onlyJunk, 0o755)
	os.WriteFile(filepath.Join(onlyJunk, "a.png"), []byte("junk"), 0o644)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	refuse := httptest.NewServer(http.NotFoundHandler())
	defer refuse.Close()

	for _, tt := range []struct {
		url  string
		kind camera.FaultKind
		say  string
	}{
		{"/dev/video77", camera.FaultNoSource, "no such file"},
		{"v4l2:///dev/shm", camera.FaultNoSource, "no device"},
		{"/dev/null", camera.FaultNoSource, "cannot be used as a camera"},
		{"file://" + dir + "/nothing.avi", camera.FaultNoSource, "no such file"},
		{"file://" + dir, camera.FaultNoSource, "folder://"},
		{"file://" + junk, camera.FaultDecode, "no video"},
		{"folder://" + dir + "/nothing", camera.FaultNoSource, "no such file"},
		{"folder://" + junk, camera.FaultNoSource, "no folder"},
		{"folder://" + t.TempDir(), camera.FaultNoSource, "no pictures"},
		{"folder://" + onlyJunk + "?loop=true", camera.FaultDecode, "no picture below"},
		{"rtsp://user:geheim@" + closed.Addr().String() + "/s", camera.FaultNoAnswer, "refused"},
		{"http://user:geheim@" + closed.Addr().String() + "/s", camera.FaultNoAnswer, "refused"},
		{"http://user:geheim@nowhere.invalid/s", camera.FaultNoSource, "host not found"},
		{strings.Replace(refuse.URL, "//", "//user:geheim@", 1) + "/cam?token=geheim", camera.FaultNoSource, "no video that OpenCV can read"},
		{"gst:nosuchelement password=geheim ! appsink", camera.FaultNoSource, "GStreamer"},
	} {
		c, err := Open(context.Background(), source(t, "%s", strings.ReplaceAll(tt.url, "%", "%%")), Patience{Open: 3 * time.Second, Read: time.Second})
		if err == nil {
			var f camera.Frame
			err = c.Read(&f)
			c.Close()
		}
		t.Run(string(tt.kind), func(t *testing.T) {
			wantFault(t, err, tt.kind)
			if !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%s: error %q does not say %q", tt.url, err, tt.say)
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("a password stands in the error %q", err)
			}
		})
	}
}

// OpenCV obeys the numbers given to it: otherwise it would wait half a minute.
func TestServerThatNeverSpeaksIsGivenUp(t *testing.T) {
	for _, scheme := range []string{"http", "rtsp"} {
		start := time.Now()
		_, err := Open(context.Background(), source(t, "%s://%s/stream", scheme, silentListener(t)), Patience{Open: 1500 * time.Millisecond, Read: time.Second})
		took := time.Since(start)
		t.Logf("%s: %v after %v", scheme, err, took)
		wantFault(t, err, camera.FaultNoAnswer)
		if took > 20*time.Second {
			t.Errorf("%s: gave up after %v: the timeout is not obeyed", scheme, took)
		}
	}
}

// mjpegServer sends n pictures and then either hangs up or goes silent.
func mjpegServer(t *testing.T, n int, silent bool) string {
	t.Helper()
	dir := t.TempDir()
	picture(t, filepath.Join(dir, "p.jpg"), 64, 48, 100, 150, 200)
	pic, err := os.ReadFile(filepath.Join(dir, "p.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	quit := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		out := bufio.NewWriter(w)
		for i := 0; i < n; i++ {
			fmt.Fprintf(out, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", len(pic))
			out.Write(pic)
			out.WriteString("\r\n")
			out.Flush()
			w.(http.Flusher).Flush()
		}
		if silent {
			select {
			case <-quit:
			case <-r.Context().Done():
			}
		}
	}))
	t.Cleanup(func() { close(quit); srv.Close() })
	return srv.URL
}

func TestMJPEGOverHTTP(t *testing.T) {
	for _, tt := range []struct {
		name   string
		silent bool
		kind   camera.FaultKind
	}{{"server hangs up", false, camera.FaultEnd}, {"server goes silent", true, camera.FaultStalled}} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Open(context.Background(), source(t, "%s/cam.mjpg", mjpegServer(t, 40, tt.silent)), Patience{Open: 5 * time.Second, Read: 1500 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var f camera.Frame
			n := 0
			for ; n < 100; n++ {
				if err = c.Read(&f); err != nil {
					break
				}
				if f.Width != 64 || f.Height != 48 || abs(int(f.Data[0])-100) > 8 {
					t.Fatalf("frame %d: %d×%d, first byte %d", n, f.Width, f.Height, f.Data[0])
				}
			}
			t.Logf("%d of 40 frames, then %v", n, err)
			if n < 30 {
				t.Errorf("only %d frames arrived", n)
			}
			wantFault(t, err, tt.kind)
		})
	}
}

func TestGStreamerPipeline(t *testing.T) {
	c, err := Open(context.Background(), source(t, "gst:videotestsrc num-buffers=5 ! video/x-raw,format=BGR,width=64,height=48 ! appsink"), Patience{Open: 5 * time.Second, Read: time.Second})
	if err != nil {
		t.Fatalf("%v (the Debian package gstreamer1.0-plugins-base has videotestsrc and appsink)", err)
	}
	defer c.Close()
	var f camera.Frame
	for i := range 5 {
		if err := c.Read(&f); err != nil || f.Width != 64 || f.Height != 48 {
			t.Fatalf("frame %d: %d×%d, %v", i, f.Width, f.Height, err)
		}
	}
	if err := c.Read(&f); err == nil {
		t.Error("a sixth frame out of five")
	}
}

func TestPreviewJPEG(t *testing.T) {
	e := NewEncoder()
	defer e.Close()
	for _, tt := range []struct {
		name                string
		frame               camera.Frame
		width, wantW, wantH int
	}{
		{"shrunk", solid(640, 480, 0, camera.BGR8), 320, 320, 240},
		{"never enlarged", solid(64, 48, 0, camera.BGR8), 320, 64, 48},
		{"gray", solid(100, 10, 0, camera.Gray8), 50, 50, 5},
		{"padded rows", solid(99, 33, 13, camera.BGR8), 400, 99, 33},
		{"very flat", solid(4000, 2, 0, camera.Gray8), 16, 16, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, w, h, err := e.JPEG(&tt.frame, tt.width, 90)
			if err != nil {
				t.Fatal(err)
			}
			img, err := jpeg.Decode(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if s := img.Bounds().Size(); s.X != tt.wantW || s.Y != tt.wantH || w != s.X || h != s.Y {
				t.Errorf("JPEG of %v, said to be %d×%d, want %d×%d", s, w, h, tt.wantW, tt.wantH)
			}
			r, _, _, _ := img.At(0, 0).RGBA()
			if got := int(r >> 8); abs(got-120) > 6 {
				t.Errorf("red is %d, want 120", got)
			}
		})
	}
	bad := solid(8, 8, 0, camera.BGR8)
	bad.Width = 9
	if _, _, _, err := e.JPEG(&bad, 8, 90); err == nil {
		t.Error("an impossible frame was encoded")
	}
}

// solid is a frame of value 120, with pad bytes of 255 behind each row.
func solid(w, h, pad int, format camera.PixelFormat) camera.Frame {
	row := w * format.Channels()
	f := camera.Frame{Seq: 1, Width: w, Height: h, Stride: row + pad, Format: format, Data: bytes.Repeat([]byte{255}, h*(row+pad))}
	for y := range h {
		for x := range row {
			f.Data[y*f.Stride+x] = 120
		}
	}
	return f
}

func TestBufferTime(t *testing.T) {
	const now = 100 * time.Second
	for _, tt := range []struct {
		ms   float64
		want time.Duration
	}{
		{99_980, 99_980 * time.Millisecond},
		{0, now},            // the driver says nothing
		{1.7e12, now},       // wall clock
		{100_000.5, now},    // the future
		{98_000, now},       // too old to be this frame
		{math.NaN(), now},   // nonsense
		{math.Inf(-1), now}, // nonsense
		{100_000, now},      // just now
		{99_999.5, now - 500*time.Microsecond},
	} {
		if got := bufferTime(now, tt.ms); got != tt.want {
			t.Errorf("bufferTime(%v) = %v, want %v", tt.ms, got, tt.want)
		}
	}
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
