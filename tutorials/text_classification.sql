-- Train a text classifier on IMDB movie reviews: the statements of the first tutorial, in its order.
-- thano run tutorials/text_classification.sql

COPY movie_review_train 
OPTIONS(overwrite = True)
FROM "tutorial_data/movie_review_data/movie_review_train.csv";
COPY movie_review_test 
OPTIONS(overwrite = True)
FROM "tutorial_data/movie_review_data/movie_review_test.csv";

-- Look at the data.
SELECT *
FROM movie_review_train
LIMIT 5;

-- Predict with the pre-built model, which has not seen the test rows.
PREDICT USING tutorial_text_classification
OPTIONS (
    text_col='review',
    label_col='sentiment'
    )
AS
SELECT *
FROM movie_review_test;

-- Train a model of your own: one epoch.
BUILD MODEL my_movie_review_classifier
USING ElectraEn
OPTIONS (
  text_col='review',
  label_col='sentiment',
  epochs=1,
  batch_size=4,
  overwrite=True
  )
AS
SELECT *
FROM movie_review_train;

-- Predict with it.
PREDICT USING my_movie_review_classifier
OPTIONS (
    text_col='review'
    )
AS
SELECT *
FROM movie_review_test;
