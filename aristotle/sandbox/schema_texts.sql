-- Where an installation keeps the model's texts.
CREATE TABLE conquest_prompt (
    id                   VARCHAR PRIMARY KEY,
    conquest_analysis_id VARCHAR NOT NULL,
    data                 JSONB
);
CREATE TABLE conquest_response (
    id                   VARCHAR PRIMARY KEY,
    conquest_analysis_id VARCHAR NOT NULL,
    data                 JSONB
);
