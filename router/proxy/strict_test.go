package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// errCut is that a request ends before it is whole.
var errCut = errors.New("cut short")

var (
	strictLine   = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\\x00-\\x20\\x7f]+ HTTP/1\\.1$")
	strictHeader = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$")
	strictLength = regexp.MustCompile("^[0-9]{1,18}$")
	strictChunk  = regexp.MustCompile("^[0-9a-f]{1,15}$")
)

// readStrictly reads one request as no two parsers can read it in two ways. Its errors are errCut, or tell what is ambiguous.
func readStrictly(r *bufio.Reader) (line string, err error) {
	if line, err = strictly(r, strictLine); err != nil {
		return line, err
	}
	hosts, length, chunked := 0, "", false
	for {
		text, err := strictly(r, nil)
		switch {
		case err != nil:
			return line, err
		case text == "":
			if hosts != 1 {
				return line, fmt.Errorf("%d hosts", hosts)
			}
			return line, bodyStrictly(r, length, chunked)
		}
		m := strictHeader.FindStringSubmatch(text)
		if m == nil {
			return line, fmt.Errorf("header %q", text)
		}
		switch value := strings.TrimSpace(m[2]); strings.ToLower(m[1]) {
		case "host":
			hosts++
		case "content-length":
			if length != "" || !strictLength.MatchString(value) {
				return line, fmt.Errorf("length %q after %q", value, length)
			}
			length = value
		case "transfer-encoding":
			if chunked || value != "chunked" {
				return line, fmt.Errorf("coding %q", value)
			}
			chunked = true
		case "upgrade":
			if !strings.EqualFold(value, "websocket") {
				return line, fmt.Errorf("upgrade to %q", value)
			}
		case "keep-alive", "proxy-connection", "proxy-authorization", "http2-settings":
			return line, fmt.Errorf("hop %q", text)
		}
	}
}

func bodyStrictly(r *bufio.Reader, length string, chunked bool) error {
	switch {
	case length != "" && chunked:
		return errors.New("length and coding")
	case length != "":
		return skip(r, length, 10)
	case !chunked:
		return nil
	}
	for {
		size, err := strictly(r, strictChunk)
		if err != nil {
			return err
		}
		if strings.Trim(size, "0") == "" {
			break
		}
		if err := skip(r, size, 16); err != nil {
			return err
		}
		if end, err := strictly(r, nil); err != nil || end != "" {
			return errors.Join(err, fmt.Errorf("%q after a chunk", end))
		}
	}
	for {
		if text, err := strictly(r, nil); err != nil || text == "" {
			return err
		} else if !strictHeader.MatchString(text) {
			return fmt.Errorf("trailer %q", text)
		}
	}
}

// strictly is the next line, which matches want if it is given, without its CRLF.
func strictly(r *bufio.Reader, want *regexp.Regexp) (string, error) {
	text, err := r.ReadString('\n')
	if err != nil {
		return text, errCut
	}
	text, ok := strings.CutSuffix(text, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") || (want != nil && !want.MatchString(text)) {
		return text, fmt.Errorf("line %q", text)
	}
	return text, nil
}

func skip(r io.Reader, size string, base int) error {
	n, err := strconv.ParseInt(size, base, 64)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, r, n); err != nil {
		return errCut
	}
	return nil
}
