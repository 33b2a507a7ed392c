-- Judge the models of text_classification.sql on the 1,000 test rows, which neither was trained on.
-- thano run tutorials/text_classification.sql tutorials/text_classification_evaluate.sql

EVALUATE USING my_movie_review_classifier
OPTIONS (text_col='review', label_col='sentiment')
AS
SELECT * FROM movie_review_test;

EVALUATE USING tutorial_text_classification
OPTIONS (text_col='review', label_col='sentiment')
AS
SELECT * FROM movie_review_test;

-- Where the new model errs: a row for each true class, a column for each predicted one.
EVALUATE USING my_movie_review_classifier
OPTIONS (text_col='review', label_col='sentiment', report='confusion')
AS
SELECT * FROM movie_review_test;

LIST MODEL;
