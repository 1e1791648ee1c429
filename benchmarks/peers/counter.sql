-- setup
CREATE TABLE budget (
    id INTEGER PRIMARY KEY,
    capacity BIGINT NOT NULL,
    held BIGINT NOT NULL,
    spent BIGINT NOT NULL
);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    model TEXT NOT NULL,
    estimate BIGINT NOT NULL,
    cost BIGINT
);
INSERT INTO budget VALUES (1, 1000000000000000, 0, 0);

-- operation
UPDATE budget SET held = held + 9000 WHERE id = 1 AND capacity - held - spent >= 9000;
INSERT INTO calls (id, run, model, estimate)
    SELECT coalesce(max(id), 0) + 1, 'benchmark', 'some-model', 9000 FROM calls;

-- operation
UPDATE budget SET held = held - 9000, spent = spent + 4800 WHERE id = 1;
UPDATE calls SET cost = 4800 WHERE id = (SELECT max(id) FROM calls);
