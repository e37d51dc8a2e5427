package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/droverhq/drover/agent/wire"
)

// MosquittoOptions say where mosquitto listens and finds its files.
type MosquittoOptions struct {
	Fleet   string
	Address string // host:port
	Files   Files  // absolute paths
}

// Files are what mosquitto reads; the conversion of identity.Files.
type Files struct{ CA, Certificate, Key, CRL string }

// MosquittoConfig writes mosquitto.conf and mosquitto.acl into dir, for
// mosquitto 2.0 and later, and returns the path of mosquitto.conf.
func MosquittoConfig(dir string, o MosquittoOptions) (string, error) {
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		return "", fmt.Errorf("broker: mosquitto configuration: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strings.ContainsAny(host, " \t\r\n#") {
		return "", fmt.Errorf("broker: mosquitto configuration: address %q", o.Address)
	}
	if !wire.ValidName(o.Fleet) {
		return "", fmt.Errorf("broker: mosquitto configuration: fleet %q is no fleet name", o.Fleet)
	}
	acl := filepath.Join(dir, "mosquitto.acl")
	for _, p := range []string{o.Files.CA, o.Files.Certificate, o.Files.Key, o.Files.CRL, acl} {
		if !filepath.IsAbs(p) || strings.ContainsAny(p, "\r\n") {
			return "", fmt.Errorf("broker: mosquitto configuration: path %q must be absolute and on one line", p)
		}
	}
	listener := "listener " + port
	if host != "" {
		listener += " " + host
	}
	conf := fmt.Sprintf(mosquittoConf, o.Fleet, listener, o.Files.CA, o.Files.Certificate, o.Files.Key, o.Files.CRL,
		acl, maxPacket, wire.MaxMessage)
	path := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(acl, []byte(mosquittoACL(o.Fleet)), 0o644); err != nil {
		return "", fmt.Errorf("broker: mosquitto configuration: %w", err)
	}
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return "", errors.Join(fmt.Errorf("broker: mosquitto configuration: %w", err), os.Remove(acl))
	}
	return path, nil
}

const mosquittoConf = `# mosquitto configuration for the drover fleet %q, written by drover.
# What mosquitto cannot enforce, and the embedded broker can:
#   - that devices retain messages only on their topics online and state:
#     a device may leave retained messages on its other own topics as well.
#     (Hubs ignore them: every message is known by its boot id and sequence.)
#   - that sessions are clean: one that is not is bounded below.
#   - that a device gives a last will only on its topic online: the ACL holds
#     it to topics that it may write anyway.
#   - that a session ends when its certificate is revoked: mosquitto reads the
#     revocation list at SIGHUP, and lets sessions that are open go on; a
#     restart ends them.
#   - that the shard in a device's topic is the device's: hubs refuse others.

per_listener_settings false
%s
protocol mqtt

# Who a client is, its certificate says; TLS 1.3 and nothing else.
cafile %s
certfile %s
keyfile %s
crlfile %s
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file %s

# Bounds.
max_packet_size %d
message_size_limit %d
max_connections 4096
max_inflight_messages 20
max_inflight_bytes 4194304
max_queued_messages 1000
max_queued_bytes 33554432
max_qos 1
persistent_client_expiration 1h
queue_qos0_messages false
retain_available true
persistence false
sys_interval 0
connection_messages true
log_type warning
log_type error
log_type notice
`

// mosquittoACL mirrors Authorize. A pattern cannot compute the shard, so a
// device could use any of the 16 for its own name; hubs refuse a topic whose
// shard is not the device's (wire.ParseTopic). "%u" is the certificate's common
// name: it must be one level, which ValidDevice guarantees for all that the hub
// CA has signed.
func mosquittoACL(fleet string) string {
	base := wire.Prefix + fleet + "/"
	own := base + "d/+/%u/"
	var b strings.Builder
	fmt.Fprintf(&b, "# Topic permissions of the drover fleet %q, written by drover. Default: nothing.\n", fleet)
	b.WriteString("# The shard (+) is not checked here; hubs refuse a wrong one.\n\n")
	fmt.Fprintf(&b, "user %s\ntopic readwrite %s#\n\n", HubName, base)
	for _, l := range []wire.Leaf{wire.LeafOnline, wire.LeafState, wire.LeafEvent, wire.LeafTelemetry, wire.LeafGet, wire.LeafRenew} {
		fmt.Fprintf(&b, "pattern write %s%s\n", own, l)
	}
	fmt.Fprintf(&b, "pattern write %s%s/+\n", own, wire.LeafSample)
	fmt.Fprintf(&b, "pattern read %strust/#\npattern read %sblob/#\n", base, base)
	fmt.Fprintf(&b, "pattern read %s%s\n", own, wire.LeafCertificate)
	fmt.Fprintf(&b, "pattern read %s%s\npattern read %s%s\npattern read %s%s/+\n", own, wire.LeafDesired, own, wire.LeafCommand, own, wire.LeafBlob)
	return b.String()
}
