-- Instants are microseconds since 1970 UTC. Digests are SHA-256 in lower-case
-- hex. {{serial}} and {{bytes}} are replaced by what the database calls them.

CREATE TABLE changes (
  area TEXT   NOT NULL PRIMARY KEY,
  n    BIGINT NOT NULL
);

CREATE TABLE blobs (
  digest  TEXT   NOT NULL PRIMARY KEY,
  size    BIGINT NOT NULL,
  created BIGINT NOT NULL
);

CREATE TABLE models (
  name    TEXT    NOT NULL,
  version INTEGER NOT NULL,
  created BIGINT  NOT NULL,
  tflite  TEXT    NOT NULL REFERENCES blobs (digest),
  spec    TEXT    NOT NULL,
  dataset TEXT    NOT NULL,
  lineage TEXT    NOT NULL,
  metrics TEXT    NOT NULL,
  parents TEXT    NOT NULL,
  PRIMARY KEY (name, version)
);

CREATE TABLE aliases (
  model   TEXT    NOT NULL,
  alias   TEXT    NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (model, alias),
  FOREIGN KEY (model, version) REFERENCES models (name, version)
);

CREATE TABLE releases (
  path     TEXT    NOT NULL PRIMARY KEY,
  model    TEXT    NOT NULL,
  version  INTEGER NOT NULL,
  epoch    BIGINT  NOT NULL,
  manifest TEXT    NOT NULL REFERENCES blobs (digest),
  created  BIGINT  NOT NULL,
  state    TEXT    NOT NULL,
  FOREIGN KEY (model, version) REFERENCES models (name, version)
);

CREATE TABLE metadata (
  role    TEXT      NOT NULL,
  version BIGINT    NOT NULL,
  bytes   {{bytes}} NOT NULL,
  created BIGINT    NOT NULL,
  PRIMARY KEY (role, version)
);

CREATE TABLE rollouts (
  id       TEXT   NOT NULL PRIMARY KEY,
  release  TEXT   NOT NULL REFERENCES releases (path),
  plan     TEXT   NOT NULL,
  state    TEXT   NOT NULL,
  created  BIGINT NOT NULL,
  updated  BIGINT NOT NULL,
  reason   TEXT   NOT NULL
);

CREATE TABLE devices (
  id               TEXT    NOT NULL PRIMARY KEY,
  shard            TEXT    NOT NULL,
  labels           TEXT    NOT NULL,
  cert_serial      TEXT    NOT NULL,
  cert_fingerprint TEXT    NOT NULL,
  cert_expiry      BIGINT  NOT NULL,
  enrolled_at      BIGINT  NOT NULL,
  revoked_at       BIGINT  NOT NULL,
  last_seen        BIGINT  NOT NULL,
  online           INTEGER NOT NULL,
  state            TEXT    NOT NULL,
  boot             TEXT    NOT NULL,
  seq              BIGINT  NOT NULL
);
CREATE INDEX devices_by_shard ON devices (shard, id);

CREATE TABLE events (
  id      {{serial}},
  device  TEXT   NOT NULL REFERENCES devices (id),
  boot    TEXT   NOT NULL,
  seq     BIGINT NOT NULL,
  at      BIGINT NOT NULL,
  kind    TEXT   NOT NULL,
  release TEXT   NOT NULL,
  body    TEXT   NOT NULL,
  UNIQUE (device, boot, seq)
);
CREATE INDEX events_by_release ON events (release, id);

CREATE TABLE tokens (
  hash      TEXT    NOT NULL PRIMARY KEY,
  created   BIGINT  NOT NULL,
  expires   BIGINT  NOT NULL,
  uses_left INTEGER NOT NULL,
  labels    TEXT    NOT NULL
);

CREATE TABLE token_uses (
  hash   TEXT   NOT NULL REFERENCES tokens (hash),
  device TEXT   NOT NULL,
  at     BIGINT NOT NULL
);
CREATE INDEX token_uses_by_hash ON token_uses (hash);

CREATE TABLE audit (
  id    {{serial}},
  at    BIGINT NOT NULL,
  actor TEXT   NOT NULL,
  act   TEXT   NOT NULL,
  body  TEXT   NOT NULL
);

CREATE TABLE leases (
  name   TEXT   NOT NULL PRIMARY KEY,
  holder TEXT   NOT NULL,
  until  BIGINT NOT NULL,
  term   BIGINT NOT NULL
);
