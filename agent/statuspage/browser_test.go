package statuspage

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// browser is a headless Chromium that records what it asks for.
type browser struct {
	ctx context.Context

	mu       sync.Mutex
	requests []string
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium: install the package chromium to test the page in a browser")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("proxy-server", "127.0.0.1:9"), // whatever leaves the host fails
		chromedp.Flag("proxy-bypass-list", "127.0.0.1"),
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	tab, closeTab := chromedp.NewContext(allocator)
	b := &browser{ctx: tab}
	t.Cleanup(func() {
		if err := chromedp.Cancel(tab); err != nil {
			t.Log("close the browser:", err)
		}
		closeTab()
		stop()
	})
	err = chromedp.Listen(tab, func(ev any) {
		if r, ok := ev.(*network.EventRequestWillBeSent); ok {
			b.mu.Lock()
			b.requests = append(b.requests, r.Request.URL)
			b.mu.Unlock()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(tab, 2*time.Minute)
	t.Cleanup(cancel)
	b.ctx = limited
	b.do(t, command(network.Enable, network.EnableParams{}))
	return b
}

type action = chromedp.Action[chromedp.Void]

// command makes an action of a command of the protocol.
func command[P, R any](c cdp.Command[P, R], params P) action {
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, c, params)
		return chromedp.Void{}, err
	}
}

func (b *browser) do(t *testing.T, actions ...action) {
	t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// ask is the value of an expression in the page.
func ask[T any](t *testing.T, b *browser, expression string) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// eventually waits until the expression is true in the page. The page's own
// policy forbids the polling that runs inside it.
func (b *browser) eventually(t *testing.T, expression string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ask[bool](t, b, "!!("+expression+")"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never true: %s; the page says:\n%s", expression, b.text(t))
		}
	}
}

func (b *browser) text(t *testing.T) string {
	t.Helper()
	return ask[string](t, b, `document.body.innerText`)
}

// foreignRequests are requests to anything but the page's own server.
func (b *browser) foreignRequests(t *testing.T, own string) []string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) == 0 {
		t.Error("no request was recorded")
	}
	home, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range b.requests {
		if u, err := url.Parse(r); err != nil || u.Scheme != "blob" && u.Host != home.Host {
			out = append(out, r)
		}
	}
	return out
}

// screen is a display of that size, for somebody who prefers scheme.
func screen(width, height int64, scheme string) action {
	return chromedp.Steps(
		chromedp.EmulateViewport(width, height, chromedp.EmulateScale(1)),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		}),
	)
}

// shoot keeps a picture of the page for people to look at.
func (b *browser) shoot(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("DROVER_ARTIFACTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "statuspage-"+name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}
