//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/droverhq/drover/camera"
)

func checkDevice(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return faultf(camera.FaultNoSource, "%s: %w", path, plain(err))
	}
	if st.Mode()&fs.ModeCharDevice == 0 {
		return faultf(camera.FaultNoSource, "%s is no device", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		return faultf(camera.FaultNoSource, "%s may not be opened: is the user in the group video?", path)
	}
	if err != nil {
		return faultf(camera.FaultNoSource, "%s: %w", path, plain(err))
	}
	f.Close()
	return nil
}

func checkFile(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return faultf(camera.FaultNoSource, "%s: %w", path, plain(err))
	}
	if !st.Mode().IsRegular() {
		return faultf(camera.FaultNoSource, "%s is no file; for a folder of pictures use folder://%s", path, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return faultf(camera.FaultNoSource, "%s: %w", path, plain(err))
	}
	f.Close()
	return nil
}

// checkHost connects once and hangs up, because OpenCV does not tell an unknown
// host from a dead one. It returns what is left of the patience.
func checkHost(ctx context.Context, src camera.Source, patience time.Duration) (time.Duration, error) {
	addr, err := address(src.URL())
	if err != nil {
		return 0, faultf(camera.FaultNoSource, "%s: malformed address", src)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	var unknown *net.DNSError
	switch {
	case errors.As(err, &unknown) && !unknown.IsTimeout:
		return 0, faultf(camera.FaultNoSource, "%s: host not found", src)
	case err != nil && ctx.Err() != nil:
		return 0, faultf(camera.FaultNoAnswer, "%s does not answer within %v", src, patience)
	case err != nil:
		return 0, faultf(camera.FaultNoAnswer, "%s does not answer: %w", src, plain(err))
	}
	conn.Close()
	return max(patience-time.Since(start), patience/10), nil
}

// address is host and port of a remote source.
func address(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"rtsp": "554", "rtsps": "322", "http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// plain takes operation, path and address off an error of the system: the
// message around it says them in better words.
func plain(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
