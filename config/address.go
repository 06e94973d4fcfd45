package config

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// checkListen wants host:port.
func checkListen(address, path string, r report) {
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n > 65535 || strings.ContainsAny(host, "/ ") {
		r(path, "%s, want host:port such as 127.0.0.1:8080; port 0 takes any free one", quote(address))
	}
}

// checkURL wants an http or https URL without credentials, which would end up in logs.
func checkURL(address, path string, r report) {
	u, err := url.Parse(address)
	switch {
	case err == nil && u.User != nil:
		r(path, "credentials in an address, want it without; tokens go into token_file or token_env")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		if strings.ContainsAny(address, "@?") || strings.Count(address, "/") > 3 {
			r(path, "want an address such as http://127.0.0.1:9901, without credentials and query") // it may hold a secret
			return
		}
		r(path, "%s, want an address such as http://127.0.0.1:9901", quote(address))
	}
}

// checkPrefix wants a network.
func checkPrefix(network, path string, r report) {
	if _, err := netip.ParsePrefix(network); err != nil {
		r(path, "%s, want a network such as 10.0.0.0/8", quote(network))
	}
}
