-- Sentiment analysis with BERT embeddings: the encoder stays as it is, a classifier is trained on its
-- embeddings of the first 64 tokens. That is quick, and fit for small tables.
-- thano run tutorials/bert_embeddings.sql
--
-- With a file of your own, put sentiment_data.csv (columns text and label) into the workspace's data folder
-- and replace the first statement by: COPY sentiment_data OPTIONS (overwrite=True) FROM 'sentiment_data.csv';

COPY movie_review_train OPTIONS (overwrite=True) FROM 'tutorial_data/movie_review_data/movie_review_train.csv';
COPY movie_review_test OPTIONS (overwrite=True) FROM 'tutorial_data/movie_review_data/movie_review_test.csv';

CREATE OR REPLACE TABLE sentiment_data AS
SELECT review AS text, sentiment AS label FROM movie_review_train;

BUILD MODEL bert_sentiment
USING BertEn
OPTIONS (train='head', max_length=64, epochs=3, overwrite=True)
AS
SELECT text, label FROM sentiment_data;

PREDICT USING bert_sentiment
OPTIONS (text_col='review', label_col='sentiment')
AS
SELECT * FROM movie_review_test;

EVALUATE USING bert_sentiment
OPTIONS (text_col='review', label_col='sentiment', report='classes')
AS
SELECT * FROM movie_review_test;
