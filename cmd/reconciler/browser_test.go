package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// browser is one Chromium for all tests that ask.
type browser struct {
	ctx context.Context
}

// openBrowser starts Debian's Chromium. On a machine without one the test is skipped.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		unavailable(t, "there is no Chromium on this machine: install the package chromium")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 900), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true), chromedp.Flag("no-pings", true), chromedp.Flag("lang", "en-GB"), chromedp.Env("TZ=UTC"))
	alloc, cancel := chromedp.NewExecAllocator(cleanContext(t), opts...)
	ctx, stop := chromedp.NewContext(alloc)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	t.Cleanup(func() { // before its folder is removed, and all of it
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Log(err)
		}
		stop()
		cancel()
	})
	return &browser{ctx}
}

// unavailable skips a test whose outside program is missing, and fails it in CI.
func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// tab is a person at a browser of their own: their cookies and storage are nobody else's.
type tab struct {
	*testing.T
	ctx  context.Context
	base string // of the curation app
	keys bool   // the person has no mouse
	bare bool   // their browser runs no scripts
}

func (b *browser) tab(t *testing.T, base string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return &tab{T: t, ctx: ctx, base: base}
}

// another is a second tab of the same person's browser.
func (p *tab) another() *tab {
	p.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx)
	if err := chromedp.Do(ctx); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(cancel)
	return &tab{T: p.T, ctx: ctx, base: p.base, keys: p.keys}
}

// do runs steps within a test's patience.
func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.Fatalf("%v\nthe page is %s", err, p.where())
	}
}

func (p *tab) where() string {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText.slice(0, 3000)`))
	if err != nil {
		return err.Error()
	}
	return text
}

// open shows a page.
func (p *tab) open(path string) {
	p.Helper()
	p.do(chromedp.Navigate(p.base + path))
}

// js evaluates an expression that is a text.
func (p *tab) js(expression string) string {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`String(`+expression+`)`))
	if err != nil {
		p.Fatalf("%s: %v", expression, err)
	}
	return text
}

// until waits until an expression is true. Between two pages there is nothing to ask.
func (p *tab) until(expression string) {
	p.Helper()
	for begin := time.Now(); ; askAgain(begin) {
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		yes, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`Boolean(`+expression+`)`))
		cancel()
		if err == nil && yes {
			return
		}
		if time.Since(begin) > patience {
			p.Fatalf("not so after %s: %s (%v)\nthe page is %s", patience, expression, err, p.where())
		}
	}
}

// click presses the mouse on what a selector finds, once it can be seen, or Enter once Tab has led there. A page that changes by itself can take
// it from under the mouse: such a press does nothing, and is made again.
func (p *tab) click(selector string) {
	p.Helper()
	if p.keys {
		p.reach(selector)
		p.press("\r")
		return
	}
	for {
		p.until(fmt.Sprintf(`document.readyState === "complete" && document.querySelector(%q)`, selector))
		if p.bare { // it changes by nothing but clicks, and listens to none
			p.do(chromedp.Click(chromedp.CSS(selector)))
			return
		}
		p.js(fmt.Sprintf(aim, selector))
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector)))
		missed, gone := chromedp.Run(ctx, chromedp.Evaluate[bool](`Boolean(window.aim)`))
		cancel()
		switch {
		case gone == nil && missed: // the page is the same one
		case err != nil:
			p.Fatalf("%v\nthe page is %s", err, p.where())
		default:
			return
		}
	}
}

// aim has the page tell whether a click hits what it is meant for, and keeps one that does not from everything else.
const aim = `(() => {
	if (window.aim === undefined) addEventListener("click", e => {
		if (!aim) return;
		if (e.target.closest(aim)) aim = "";
		else { e.preventDefault(); e.stopImmediatePropagation(); }
	}, true);
	window.aim = %q;
})()`

// reach presses Tab until what a selector finds has the focus, and looks whether a person sees that. The page may change meanwhile.
func (p *tab) reach(selector string) {
	p.Helper()
	p.until(fmt.Sprintf(`document.readyState === "complete" && document.querySelector(%q)`, selector))
	here := fmt.Sprintf(`document.activeElement === document.querySelector(%q)`, selector)
	for range 500 {
		if p.js(here) == "true" {
			if outline := p.js(`getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
				p.Errorf("nobody sees that %s has the focus", selector)
			}
			return
		}
		p.press("\t")
	}
	p.Fatalf("Tab does not lead to %s\nthe page is %s", selector, p.where())
}

// press presses keys.
func (p *tab) press(keys string, opts ...chromedp.KeyOption) {
	p.Helper()
	p.until(`document.readyState === "complete"`)
	p.do(chromedp.KeyEvent(keys, opts...))
}

// fill writes into a field, in place of what is there.
func (p *tab) fill(selector, text string) {
	p.Helper()
	if p.keys {
		p.reach(selector)
		if p.js(`document.activeElement.tagName`) == "SELECT" {
			p.press(text)
			return
		}
		p.js(`document.activeElement.select()`) // Ctrl+A, which is the window system's to give
		if _, err := chromedp.Call(p.ctx, input.InsertText, input.InsertTextParams{Text: text}); err != nil {
			p.Fatal(err)
		}
		return
	}
	p.until(fmt.Sprintf(`document.readyState === "complete" && document.querySelector(%q)`, selector))
	p.do(chromedp.SetValue(chromedp.CSS(selector), text))
	p.js(fmt.Sprintf(`document.querySelector(%q).dispatchEvent(new Event("input", {bubbles: true}))`, selector))
}

// saved sends a correction, and waits for the page that answers, not for the one that was there before: where a slow Label Studio did
// not take it, it is saved again.
func (p *tab) saved(send func()) {
	p.Helper()
	p.js(`window.before = true`)
	send()
	p.until(`!window.before && document.readyState === "complete" && (document.body.dataset.page === "conquest" || document.querySelector(".notice.problem"))`)
	if p.js(`document.body.dataset.page`) == "edit" {
		p.save("Saved as your annotation in Label Studio.")
	}
}

// as makes the tab one of somebody else, by the word of a trusted proxy.
func (p *tab) as(email string) *tab {
	p.Helper()
	_, err := chromedp.Call(p.ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"X-Forwarded-User": email}})
	if err != nil {
		p.Fatal(err)
	}
	return p
}

// scripts switches the page's scripts on or off.
func (p *tab) scripts(on bool) {
	p.Helper()
	if _, err := chromedp.Call(p.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}); err != nil {
		p.Fatal(err)
	}
	p.bare = !on
}

// dark makes the tab prefer dark colours, or light ones.
func (p *tab) dark(yes bool) {
	p.Helper()
	scheme := map[bool]string{true: "dark", false: "light"}[yes]
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	if err != nil {
		p.Fatal(err)
	}
}

// shot writes what the window shows to a PNG.
func (p *tab) shot(file string) {
	p.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(file, png, 0o644)
	}
	if err != nil {
		p.Fatal(err)
	}
}

// axe-core, which finds what keeps people with disabilities from using a page. Its package is fetched by npm, once, and is
// believed by its hash.
const (
	axeVersion = "4.14.1"
	axeSHA256  = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c" // of axe.min.js
)

var axe = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "reconciler", "axe-"+axeVersion+".min.js")
	text, err := os.ReadFile(file)
	if err != nil {
		if text, err = fetchAxe(); err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return "", err
		}
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != axeSHA256 {
		return "", fmt.Errorf("%s is not axe-core %s: remove it", file, axeVersion)
	}
	return string(text), nil
})

func fetchAxe() ([]byte, error) {
	dir, err := os.MkdirTemp("", "axe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	fetch := exec.Command("npm", "pack", "--silent", "axe-core@"+axeVersion)
	unpack := exec.Command("tar", "xzf", "axe-core-"+axeVersion+".tgz", "package/axe.min.js")
	for _, c := range []*exec.Cmd{fetch, unpack} {
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("get axe-core by npm: %w: %s", err, out)
		}
	}
	return os.ReadFile(filepath.Join(dir, "package", "axe.min.js"))
}

// fitsPhone tells what of a page does not fit a telephone's width, and what of its controls cannot be reached there.
const fitsPhone = `(() => {
	const bad = [], wide = innerWidth;
	if (document.documentElement.scrollWidth > wide) bad.push("the page is " + document.documentElement.scrollWidth + " wide, of " + wide);
	for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")) {
		if (!e.checkVisibility()) continue;
		e.focus();
		e.scrollIntoView({block: "center", inline: "center"});
		const r = e.getClientRects()[0], hit = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
		if (r.left < -1 || r.right > wide + 1) bad.push("beside the page: " + e.outerHTML);
		else if (!hit || !e.contains(hit)) bad.push("under something else: " + e.outerHTML + (hit ? " is under " + hit.outerHTML.slice(0, 200) : ""));
	}
	document.activeElement.blur();
	scrollTo(0, 0);
	return bad.join("\n");
})()`

// accessible checks the page that is shown, in light and in dark, and on a small telephone.
func (p *tab) accessible(what string) {
	p.Helper()
	script, err := axe()
	if err != nil {
		unavailable(p.T, err.Error())
	}
	p.until(`document.readyState === "complete"`)
	for _, dark := range []bool{false, true} {
		p.dark(dark)
		p.do(chromedp.Evaluate[chromedp.Void](script))
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		found, err := chromedp.Run(ctx, chromedp.Evaluate[string](`axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], rules: {"target-size": {enabled: true}}})
			.then(r => r.violations.map(v => v.id + ": " + v.help + "\n" + v.nodes.map(n => "  " + n.html + "\n  " + n.failureSummary).join("\n")).join("\n"))`,
			chromedp.EvalAwaitPromise))
		cancel()
		if err != nil {
			p.Fatal(err)
		}
		if found != "" {
			p.Errorf("%s, dark: %v:\n%s", what, dark, found)
		}
	}
	p.dark(false)
	p.do(chromedp.EmulateViewport(360, 740))
	if found := p.js(fitsPhone); found != "" {
		p.Errorf("%s, on a telephone:\n%s", what, found)
	}
	p.do(chromedp.EmulateViewport(1280, 900))
}

// says waits until the page says something.
func (p *tab) says(want string) {
	p.Helper()
	p.until(fmt.Sprintf(`document.body && document.body.innerText.includes(%q)`, want))
}
